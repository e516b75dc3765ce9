"""`python -m supervisor`: what `orchctl serve` replaces itself by."""

import gc

gc.disable()  # until all is loaded: modules stay, and to look through them again and again is a twelfth of the start

from supervisor.main import main  # noqa: E402

if __name__ == "__main__":
    main()
