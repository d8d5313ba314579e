"""`python -m tokka` is the console script."""

from tokka.cli import main

if __name__ == "__main__":
    main()
