"""`python -m cnngraph`."""

from cnngraph.cli import main

if __name__ == "__main__":
    main()
