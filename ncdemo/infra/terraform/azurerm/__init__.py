"""What each azurerm argument is in Azure's own terms: the type, the property, and how the value is converted.

A path of `None` is part of the resource's address. What azurerm itself always sends stands in `fixed`.
Sources: the azurerm provider's documentation and its expand functions (4.81, 5.2), and Azure's resource schemas.
"""

from ncdemo.infra.terraform.azurerm.compute import COMPUTE
from ncdemo.infra.terraform.azurerm.kind import Kind
from ncdemo.infra.terraform.azurerm.monitoring import MONITORING
from ncdemo.infra.terraform.azurerm.shared import SHARED

KINDS: dict[str, Kind] = {**SHARED, **COMPUTE, **MONITORING}
