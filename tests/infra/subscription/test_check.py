"""What `ncdemo doctor azure` makes of Azure's answers: what is missing, what isn't known, and which region is best."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError

from ncdemo.infra.subscription import ask
from ncdemo.infra.subscription.ask import NoAnswer
from ncdemo.infra.subscription.check import Examined, examine, namespaces
from ncdemo.infra.subscription.region import lowest
from ncdemo.infra.subscription.retail import Live, live_prices
from ncdemo.spec.finding import Finding
from ncdemo.spec.stack import StackSpec
from tests.infra.subscription.stand_in import D4, NC40, SUBSCRIPTION, TOKEN, Cloud, azure

BOTH = ["eastus", "spaincentral"]


class Login:
    """A credential that has its token already, for one endpoint."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get_token(self, *scopes: str) -> SimpleNamespace:
        assert scopes == (f"{self.url}/.default",)
        return SimpleNamespace(token=TOKEN)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Cloud]:
    with azure() as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
        yield served


def look(cloud: Cloud, *regions: str, **config: Any) -> Examined:
    import json

    return examine(StackSpec.model_validate_json(json.dumps(config)), lambda: Login(cloud.url), regions)


def of(found: Examined, check: str, word: str = "") -> Finding:
    return next(one for one in found.findings if one.check == check and word in one.found)


def test_all_well_is_ok_and_says_what_it_costs(cloud: Cloud) -> None:
    found = look(cloud, "spaincentral")
    assert {one.status for one in found.findings} == {"ok"}
    assert of(found, "subscription").found == f"Team ({SUBSCRIPTION})"
    assert of(found, "spaincentral: quota", "lowPriorityCores").found == "lowPriorityCores: 40 vCPUs wanted, 100 free (0 of 100 used)"
    assert of(found, "spaincentral: price").found == (
        "all machines: 9.25 USD per hour pay as you go, 2.15 with spot pools at today's spot price"
    )
    assert all(one.remedy is None for one in found.findings)


def test_regions_are_ranked_by_what_works_then_odds_then_price(cloud: Cloud) -> None:
    assert [one.name for one in look(cloud, *BOTH).regions] == ["spaincentral", "eastus"]
    cloud.scores = cloud.rates = {}
    assert [one.name for one in look(cloud, *BOTH).regions] == ["spaincentral", "eastus"]  # cheaper at today's spot prices
    cloud.quota["spaincentral"]["lowPriorityCores"] = (0, 0)
    assert [one.name for one in look(cloud, *BOTH).regions] == ["eastus", "spaincentral"]


def test_missing_quota_is_counted_and_its_remedy_asks_for_the_sum(cloud: Cloud) -> None:
    cloud.quota["eastus"] |= {"lowPriorityCores": (10, 30), "StandardNCadsH100v5Family": (70, 80)}
    found = look(cloud, pools=[{"name": "a1"}, {"name": "b1", "spot": False, "max_count": 2}])
    spot = of(found, "eastus: quota", "lowPriorityCores")
    assert (spot.status, spot.found) == ("fail", "lowPriorityCores: 40 vCPUs wanted, 20 free (10 of 30 used); 20 missing")
    assert spot.remedy == (
        f"az quota update --resource-name lowPriorityCores --scope /subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/eastus"
        " --limit-object value=50 --resource-type lowPriority"
    )
    family = of(found, "eastus: quota", "standardNCadsH100v5Family")
    assert "80 vCPUs wanted, 10 free (70 of 80 used); 70 missing" in family.found
    # The name as Azure writes it there.
    assert "--resource-name StandardNCadsH100v5Family" in family.remedy
    assert "value=150 --resource-type dedicated" in family.remedy


def test_a_missing_quota_row_is_unknown_and_not_zero(cloud: Cloud) -> None:
    del cloud.quota["eastus"]["lowPriorityCores"]
    found = of(look(cloud), "eastus: quota", "lowPriorityCores")
    assert (found.status, found.found) == ("unknown", "lowPriorityCores: Azure names no such quota here")


@pytest.mark.parametrize(
    ("restriction", "status", "said"),
    [
        (
            {"type": "Location", "values": ["eastus"], "restrictionInfo": {"locations": ["eastus"]}, "reasonCode": "NotAvailableForSubscription"},
            "fail", "is restricted for this subscription (NotAvailableForSubscription)",
        ),
        (
            {"type": "Zone", "values": ["eastus"], "restrictionInfo": {"locations": ["eastus"], "zones": ["2", "1"]}, "reasonCode": "QuotaId"},
            "warn", "is offered, but not in zones 1, 2",
        ),
    ],
)  # fmt: skip
def test_a_restricted_size(restriction: dict, status: str, said: str, cloud: Cloud) -> None:
    cloud.sizes["eastus"][NC40] = [restriction]
    found = of(look(cloud), "eastus: size", NC40)
    assert (found.status, said in found.found) == (status, True)
    assert found.remedy


def test_a_size_that_a_region_lacks(cloud: Cloud) -> None:
    del cloud.sizes["eastus"][NC40]
    found = of(look(cloud), "eastus: size", NC40)
    assert (found.status, found.found) == ("fail", f"{NC40} isn't offered")


@pytest.mark.parametrize(
    ("path", "code", "check", "said"),
    [
        ("/skus$", (403, "AuthorizationFailed"), "eastus: size", "HTTP 403, AuthorizationFailed"),
        ("/usages$", (403, "AuthorizationFailed"), "eastus: quota", "HTTP 403, AuthorizationFailed"),
        ("/placementScores/", (403, "AuthorizationFailed"), "eastus: spot", "placement score: HTTP 403, AuthorizationFailed"),
        ("ResourceGraph", (400, "BadRequest"), "eastus: spot", "eviction rate: HTTP 400, BadRequest"),
        ("/providers$", (403, "AuthorizationFailed"), "providers", "HTTP 403, AuthorizationFailed"),
        ("/retail/", (503, "Busy"), "eastus: price", "Retail Prices API: HTTP 503, Busy"),
        ("/usages$", (429, "TooManyRequests"), "eastus: quota", "HTTP 429, TooManyRequests"),
    ],
)
def test_what_azure_refuses_is_unknown_with_the_reason(path: str, code: tuple, check: str, said: str, cloud: Cloud) -> None:
    cloud.refuse[path] = code
    found = look(cloud)
    one = of(found, check, said.partition(":")[0] if ": HTTP" in said else said)
    assert one.status == "unknown"
    assert said in one.found
    assert one.remedy
    assert not any(other.status == "fail" for other in found.findings)


def test_the_remedy_of_a_refused_placement_score_is_its_role(cloud: Cloud) -> None:
    cloud.refuse["/placementScores/"] = (403, "AuthorizationFailed")
    assert "Compute Recommendations Role" in of(look(cloud), "eastus: spot", "placement").remedy


def test_a_slow_answer_is_unknown(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "TIMEOUT_S", 0.3)
    cloud.slow_s["/usages$"] = 0.8
    found = of(look(cloud), "eastus: quota", "cores")
    assert (found.status, "no answer in 0.3 s" in found.found) == ("unknown", True)


def test_azure_out_of_reach_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9"
    monkeypatch.setenv("NCDEMO_ARM_URL", url)
    found = examine(StackSpec(), lambda: Login(url), subscription=SUBSCRIPTION).findings
    assert (found[-1].check, found[-1].status) == ("subscription", "unknown")
    assert "can't be reached (ConnectError)" in found[-1].found


def test_without_a_login_nothing_else_is_asked(cloud: Cloud) -> None:
    def nobody() -> Login:
        raise ClientAuthenticationError("no account")

    found = examine(StackSpec(), nobody).findings
    assert [(one.check, one.status, one.remedy) for one in found] == [("login", "fail", "az login")]
    assert cloud.asked == []


def test_the_subscription_is_the_only_one_or_the_azure_clis(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("ARM_SUBSCRIPTION_ID")
    assert of(look(cloud), "subscription").status == "ok"
    assert "GET /subscriptions" in cloud.asked
    (tmp_path / "azureProfile.json").write_text('{"subscriptions": [{"id": "22222222-2222", "isDefault": true}]}', encoding="utf-8-sig")
    other = look(cloud).findings[-1]
    assert (other.check, other.status) == ("subscription", "fail")
    assert "22222222-2222: HTTP 404" in other.found


def test_a_disabled_subscription_fails(cloud: Cloud) -> None:
    cloud.subscription_state = "Disabled"
    assert of(look(cloud), "subscription").status == "fail"


def test_providers_that_a_stack_needs(cloud: Cloud) -> None:
    cloud.states |= {
        "Microsoft.ContainerService": "NotRegistered",
        "Microsoft.Compute": "Registering",
        "Microsoft.DevTestLab": "NotRegistered",
    }
    found = {one.found: one for one in look(cloud).findings if one.check == "providers"}
    assert {text: one.status for text, one in found.items()} == {
        "Microsoft.ContainerService: NotRegistered": "fail",
        "Microsoft.Compute: Registering": "warn",
    }
    assert found["Microsoft.ContainerService: NotRegistered"].remedy == "az provider register -n Microsoft.ContainerService --wait"
    vm = {one.found for one in look(cloud, target="vm").findings if one.check == "providers"}
    assert vm == {"Microsoft.Compute: Registering", "Microsoft.DevTestLab: NotRegistered"}


def test_every_provider_of_the_rendered_stacks_is_asked_for() -> None:
    pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")
    from ncdemo.cli.stack import stack_file
    from ncdemo.infra.terraform.parity import pulumi_side
    from ncdemo.spec.stack_file import load_stack

    for name in ("aks-full", "vm-full"):
        stack = load_stack(stack_file(name))
        made = {one.type.partition("/")[0] for one in pulumi_side(stack) if one.type.startswith("Microsoft.")}
        # The first two are registered everywhere; AKS makes its nodes of Compute.
        wanted = made - {"Microsoft.Authorization", "Microsoft.Resources"} | {"Microsoft.Compute"}
        assert wanted == set(namespaces(stack.spec)), name


def test_a_token_never_leaves_for_another_host(cloud: Cloud) -> None:
    first = {"value": [{"a": 1}], "nextLink": "http://127.0.0.1:9/elsewhere"}
    with ask.Arm(Login(cloud.url)) as arm:
        arm.get = lambda *words, **query: first  # type: ignore[method-assign]
        assert list(arm.every("/x", "1")) == [{"a": 1}]


def test_prices_are_linux_by_the_hour_and_the_newest_of_several(cloud: Cloud) -> None:
    assert live_prices(NC40, BOTH) == {"eastus": Live(7.10, 2.50), "spaincentral": Live(9.00, 1.90)}
    assert live_prices(D4, ["eastus", "northeurope"]) == {"eastus": Live(0.20, None), "northeurope": Live()}


def test_prices_that_are_no_json_are_no_answer(cloud: Cloud) -> None:
    cloud._prices = lambda query: b"<html>"  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(NoAnswer, match="isn't a JSON object"):
        live_prices(NC40, ["eastus"])


@pytest.mark.parametrize(("rate", "low"), [("0-5", 0), ("15-20", 15), ("20+", 20), (None, 101), ("", 101)])
def test_eviction_rates_are_compared_by_their_lower_end(rate: str | None, low: float) -> None:
    assert lowest(rate) == low


def test_a_cluster_that_exists_needs_nothing_of_azure(cloud: Cloud) -> None:
    found = look(cloud, target="kubernetes")
    assert not any("quota" in one.check or "size" in one.check for one in found.findings)
