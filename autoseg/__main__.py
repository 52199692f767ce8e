"""`python -m autoseg`, and the script `autoseg`."""

import sys


def main() -> None:
    """Load the command line, which takes a while in which Ctrl-C may come, and run it."""
    try:
        from autoseg.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
