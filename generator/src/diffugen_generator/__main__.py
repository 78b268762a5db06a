"""Makes `python -m diffugen_generator` the same as `diffugen`."""

from diffugen_generator.cli import main

main()
