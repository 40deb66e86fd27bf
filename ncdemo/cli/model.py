"""`ncdemo model`: the embedded model as an ordinary Hugging Face folder."""

import click

from ncdemo.cli.options import call


@click.command("model")
def command() -> None:
    """Turn the embedded model into a Hugging Face folder in the cache (once), and print its path."""
    call("workloads.data.embedded_model")
