"""The append-only durable log between the gateway and metering.

One writer per gateway worker (`writer`, over `rounds` of syncs and a `keeper` of segments), one
shipper per host that reads what is sealed (`reader`) and finishes what a dead writer left
(`recovery`). Knows files and frames; knows nothing of HTTP, Django, Celery or PostgreSQL.
"""
