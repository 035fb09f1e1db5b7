"""`python -m isorun` is the command `isorun`."""

from isorun.cli.main import main

if __name__ == "__main__":
    main()
