"""`python -m roofline`, and the command `roofline`: Ctrl-C ends it without a word even while the command line is imported."""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from roofline.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT


if __name__ == "__main__":
    main()
