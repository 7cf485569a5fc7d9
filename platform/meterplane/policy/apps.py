"""Django app `policy`. Registers the compiler that `tenants` calls through its port."""

from django.apps import AppConfig


class PolicyConfig(AppConfig):
    name = "meterplane.policy"
    label = "policy"
    verbose_name = "Policy"

    def ready(self) -> None:
        from meterplane.policy.compile import recompile
        from tenants import policy_port

        policy_port.register(recompile)
