"""What a destroyed stack leaves behind, by its config."""

from typing import Any

import pytest

from ncdemo.infra.remains import Remains, as_text, remains
from ncdemo.spec.stack_file import stack_of


def left(**config: Any) -> Remains:
    return remains(stack_of("dev", config, {}, source="stacks/Pulumi.dev.yaml"))


def test_on_azure_everything_that_stays_is_free() -> None:
    for config in (
        {"target": "aks", "monitoring": {"azure_monitor": True}},
        {"target": "vm", "storage": {"files_gib": 100}, "monitoring": {"application_insights": True}},
    ):
        found = left(**config)
        assert {one.usd_per_month for one in found.left} == {0.0}
        assert all(one.remedy for one in found.left)


@pytest.mark.parametrize(
    ("config", "gone"),
    [
        ({}, "results"),
        ({"monitoring": {"in_cluster": True}}, "MLflow's runs"),
        ({"monitoring": {"azure_monitor": True}}, "Azure Monitor workspace"),
        ({"target": "vm", "monitoring": {"application_insights": True}}, "Application Insights resource"),
        ({"storage": {"files_gib": 100}}, "Files share, 100 GiB"),
        ({"target": "vm", "pools": [{"max_count": 3}]}, "3 OS disks"),
    ],
)
def test_data_that_goes_for_good_is_named(config: dict[str, Any], gone: str) -> None:
    assert any(gone in what for what in left(**config).gone)


def test_what_belongs_to_others_stays_at_their_price() -> None:
    job = {"name": "tune", "config": "workloads/configs/training/lora.yaml", "set": {"telemetry.mlflow_uri": "https://mlflow.example"}}
    found = left(target="kubernetes", images={"repository": "registry.example/ncdemo"}, jobs=[job])
    others = [one.what for one in found.left if one.usd_per_month is None]
    assert [what.split()[-1] for what in others] == ["there", "them", "registry.example/ncdemo", "https://mlflow.example"]
    assert "(its owner's price)" in as_text(found)


def test_a_deleted_workspace_that_comes_back_with_its_data_is_named() -> None:
    (one,) = [one for one in left(monitoring={"application_insights": True}).left if "Log Analytics" in one.what]
    assert one.remedy.endswith("delete --force -g rg-ncdemo-dev -n log-ncdemo-dev")


def test_the_token_is_still_good() -> None:
    found = left(hf_token={"secure": "v1:abc"})
    assert any("Hugging Face token" in one.what for one in found.left)


def test_the_config_goes_with_pulumis_own_command() -> None:
    assert any(one.remedy.startswith("pulumi stack rm dev") for one in left(name="other").left)
