import pytest
from tests.billing.credits.test_never_overdrawn import walk
pytestmark = pytest.mark.django_db
@pytest.mark.parametrize("seed", range(8))
def test_x(acme, prices, seed):
    import time
    t=time.monotonic()
    print("DONE", seed, walk(acme, prices, seed, 36), round(time.monotonic()-t,1))
