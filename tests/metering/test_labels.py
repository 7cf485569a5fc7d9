"""Every code of the contract has a name, and a code nobody knows is shown as it is."""

from typing import get_args

from meterplane.contracts.usage import Provenance, ServiceTier, Surface
from meterplane.metering import labels


def test_every_code_of_the_contract_has_a_name_of_its_own():
    named = ((Surface, labels.SURFACES), (ServiceTier, labels.TIERS))
    for codes, names in (*named, (Provenance, labels.PROVENANCES)):
        assert set(names) == set(get_args(codes))
        assert len(set(names.values())) == len(names)


def test_an_unknown_code_is_shown_as_it_is():
    for name in (labels.surface, labels.tier, labels.provenance):
        assert name("from.tomorrow") == "from.tomorrow"
    assert labels.of_split("model") == {}
