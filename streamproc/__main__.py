"""`python -m streamproc` is `streamproc`."""

from streamproc.cli import main

if __name__ == "__main__":
    main()
