"""Names are derived, and none can be taken for another."""

from __future__ import annotations

from reconciler.core import names


def test_what_belongs_to_an_environment_begins_with_its_network() -> None:
    found = [
        names.instance("prod", "web", "a" * 64, 0),
        names.backend("prod", "web"),
        names.backend("prod", "web", preview=True),
        names.proxy("prod"),
        names.volume("prod", "web", "data"),
    ]
    assert all(name.startswith(names.network("prod") + ".") for name in found)
    assert len(set(found)) == len(found)


def test_no_service_can_be_called_as_the_proxy_is() -> None:
    assert names.proxy("prod") == "rec.prod._proxy"
    assert names.volume("prod", "web", "data") == "rec.prod.web.data"
