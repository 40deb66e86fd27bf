"""The Pulumi program: config -> StackSpec -> components -> outputs.

pulumi up --stack aks-dev
"""

import datetime

import pulumi

from ncdemo.infra.program import deploy
from ncdemo.infra.pulumi_config import read_stack

stack = read_stack()
for note in stack.notes:
    pulumi.warn(note)

token = pulumi.Config().require_secret("hf_token") if stack.has_token else None
for name, value in deploy(stack, today=datetime.date.today(), hf_token=token).items():
    pulumi.export(name, value)
