"""`python -m roofline.cli`."""

from roofline.cli import main

if __name__ == "__main__":
    main()
