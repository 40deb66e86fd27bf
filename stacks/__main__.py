"""The Pulumi program: config -> StackSpec -> components -> outputs.

pulumi up --stack aks-dev
"""

import datetime

import pulumi

from ncdemo.infra.program import deploy
from ncdemo.infra.pulumi_config import read_stack
from ncdemo.spec.base import SpecError

try:
    stack = read_stack()
    for note in stack.notes:
        pulumi.warn(note)
    token = pulumi.Config().require_secret("hf_token") if stack.has_token else None
    webhook = pulumi.Config().require_secret("alert_webhook") if stack.has_webhook else None
    outputs = deploy(stack, today=datetime.date.today(), hf_token=token, alert_webhook=webhook)
except SpecError as mistake:
    # One line for each mistake, instead of a traceback.
    raise pulumi.RunError(str(mistake)) from None
for name, value in outputs.items():
    pulumi.export(name, value)
