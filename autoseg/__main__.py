"""`python -m autoseg`."""

from autoseg.cli.main import main

if __name__ == "__main__":
    main()
