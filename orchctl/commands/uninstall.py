"""`orchctl uninstall`: stop the service and take its files away. State, config and user stay."""

from pathlib import PurePosixPath

from orchctl import install_steps, unit_files
from orchctl.commands.install import DryRun, Root, Yes
from orchctl.install_plan import plan_uninstall
from orchctl.install_text import is_confirmed
from orchctl.render import Output, OutputKind, say


def uninstall(
    *, root: Root = None, dry_run: DryRun = False, yes: Yes = False, output: Output = OutputKind.TABLE
) -> None:
    """Stop the service and remove its units.

    Waiting tasks stay on disk, and so do the config, the keys and the user.
    """
    setting = unit_files.Setting(program=PurePosixPath("/nowhere"), has_credentials=True)
    known = tuple(unit_files.draw_files(setting))
    facts = install_steps.gather(known, setting.user, setting.config, root)
    plan = plan_uninstall(known, facts)
    if is_confirmed(plan, output, is_dry=dry_run, yes=yes):
        install_steps.perform(plan, {}, root)
        say("removed")
