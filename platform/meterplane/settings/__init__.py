"""Django's settings. Every value that differs between installations comes from `env.py`."""

from pathlib import Path
from urllib.parse import urlsplit

from meterplane.console.theme import UNFOLD as UNFOLD
from meterplane.settings.env import django_database, environment
from meterplane.triton.metrics import measured_servers

_env = environment()

BASE_DIR = Path(__file__).resolve().parents[3]
ENVIRONMENT = _env.meterplane_env
DEBUG = False
SECRET_KEY = _env.django_secret_key
API_KEY_PEPPER = bytes.fromhex(_env.api_key_pepper)
RECEIPT_SIGNING_KEYS = _env.receipt_signing_keys  # newest first: that one signs
PUBLIC_WEB_URL = _env.public_web_url.rstrip("/")
PUBLIC_GATEWAY_URL = _env.public_gateway_url.rstrip("/")
GATEWAY_INTERNAL_URL = (_env.gateway_internal_url or _env.public_gateway_url).rstrip("/")
ADMISSION_REDIS_URL = _env.admission_redis_url
CELERY_BROKER_URL = _env.broker_url()
JOURNAL_DIR = Path(_env.journal_dir)
FILES_DIR = BASE_DIR / (_env.files_dir or Path(_env.meterplane_var) / "files")
TRITON_METRICS = measured_servers(_env.triton_metrics_urls)
CANARY_EVERY_S = _env.canary_every_s
CANARY_MODELS = [name.strip() for name in _env.canary_models.split(",") if name.strip()]
PROVIDER_NAME = _env.provider_name
SELLER = _env.seller()
SELLER_BANK_DETAILS = _env.bank_details()
INTERIM_THRESHOLDS = _env.interims()
EXPORT_DAYS = _env.export_days
EVENT_OVERLAYS = _env.overlays()
EVENT_WINDOW_DAYS = _env.event_window_days
ARCHIVE_DIR = BASE_DIR / (_env.archive_dir or Path(_env.meterplane_var) / "archive")
USAGE_RETENTION_DAYS = _env.usage_retention_days
PAYMENT_PROVIDER = _env.payment_provider
STRIPE_API_BASE = _env.stripe_api_base
STRIPE_API_KEY = _env.stripe_key()
STRIPE_ACCOUNT_ID = _env.stripe_account_id
STRIPE_WEBHOOK_SECRETS = _env.webhook_secrets()

_secure = PUBLIC_WEB_URL.startswith("https://")
ALLOWED_HOSTS = ["*"] if ENVIRONMENT == "test" else ["127.0.0.1", "localhost", "[::1]"]
if (_host := PUBLIC_WEB_URL.split("//", 1)[-1].rsplit(":", 1)[0]) not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(_host)
CSRF_TRUSTED_ORIGINS = [PUBLIC_WEB_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _secure
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_HSTS_SECONDS = 31_536_000 if _secure else 0
SECURE_SSL_REDIRECT = False  # TLS ends at the proxy in front

INSTALLED_APPS = [
    "meterplane.portal",  # first: its templates restyle the sign-in pages
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "meterplane.console",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_cotton",
    "django_htmx",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "tenants",
    "meterplane.catalog",
    "meterplane.metering",
    "billing.pricing",
    "billing.ledger",
    "billing.credits",
    "billing.invoicing",
    "billing.payments",
    "meterplane.policy",
    "meterplane.batches",
    "meterplane.api",
    "meterplane.stack",
    "meterplane.worker",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "meterplane.urls"
ASGI_APPLICATION = "meterplane.asgi.application"
DATABASES = {"default": django_database(_env.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": False,
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django_cotton.cotton_loader.Loader",
                        "django.template.loaders.filesystem.Loader",
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
            "builtins": ["django_cotton.templatetags.cotton"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
if ENVIRONMENT == "test":
    # A test signs in hundreds of people; the hash that makes guessing slow would make it slow too.
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_ADAPTER = "meterplane.portal.accounts.Adapter"
ACCOUNT_LOGOUT_REDIRECT_URL = "/accounts/login/"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _env.redis_url,
        "KEY_PREFIX": "web",
    }
}
_mail = _env.mail_server()
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if _mail.host else 'console'}.EmailBackend"
EMAIL_HOST, EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail[:4]
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail.turns_to_tls, _mail.is_tls
EMAIL_TIMEOUT = 20

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
FORMAT_MODULE_PATH = "meterplane.console.formats"

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / _env.meterplane_var / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Customers' files: readable by their owner only, and never below what is served.
    "files": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": FILES_DIR,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if ENVIRONMENT == "test"
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = ENVIRONMENT == "test"
# Looked for when asked for: to list them all first costs every test's client 40 ms.
WHITENOISE_AUTOREFRESH = WHITENOISE_USE_FINDERS
# Where pages that send customers to pay may lead them; no other page may.
PAYMENT_PAGES = ["https://checkout.stripe.com", "https://billing.stripe.com"]
if STRIPE_API_BASE:
    _base = urlsplit(STRIPE_API_BASE)
    PAYMENT_PAGES = [f"{_base.scheme}://{_base.netloc}"]

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["meterplane.api.authentication.AdminKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["meterplane.api.exact.AnyJSON"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "meterplane.api.problems.as_problem",
    "UNAUTHENTICATED_USER": None,
    # uvicorn has settled who the peer is: it heeds X-Forwarded-For of FORWARDED_ALLOW_IPS only.
    "NUM_PROXIES": 0,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Meterplane control API",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "ENUM_NAME_OVERRIDES": {
        "KindEnum": "meterplane.api.limit_shapes.KINDS",
        "InvoiceKindEnum": "meterplane.api.invoice_shapes.INVOICE_KINDS",
        "InvoiceStatusEnum": "meterplane.api.invoice_shapes.INVOICE_STATUSES",
        "ExportKindEnum": "meterplane.metering.exports.query.KINDS",
        "LimitLevelEnum": "meterplane.api.limit_shapes.LEVELS",
        "RestrictionLevelEnum": "meterplane.api.limit_shapes.SCOPES",
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
