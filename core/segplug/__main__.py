"""`python -m segplug` is `segplug`: what torchrun's `-m segplug` starts."""

from segplug.cli.main import main

if __name__ == "__main__":
    main()
