-- A budget refused a request: count it, as admission.lua counts what other limits refuse.
--
-- Not counted there: a pool that is short is a refusal only once PostgreSQL grants nothing more.
--
-- KEYS[1] hits   ARGV[1] the name of the pool's key
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
return redis.call('EXPIRE', KEYS[1], 86400)
