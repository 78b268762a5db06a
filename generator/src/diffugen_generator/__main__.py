"""`python -m diffugen_generator` is `diffugen`."""

from diffugen_generator.cli import app

app(prog_name="diffugen")
