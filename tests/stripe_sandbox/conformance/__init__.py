"""One suite, two targets: the sandbox always, Stripe itself when `STRIPE_TEST_KEY` has a test key.

Written with Stripe's SDK alone; every exchange is judged by `tests.stripe_schema` on either side.
Where the sandbox differs on purpose, `deviations` says so and the suite holds it to that.
"""
