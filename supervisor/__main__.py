"""`python -m supervisor`: what `orchctl serve` replaces itself by."""

from supervisor.main import main

if __name__ == "__main__":
    main()
