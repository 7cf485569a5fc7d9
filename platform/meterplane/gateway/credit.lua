-- Credit a granted block to a pool, once, and only in the epoch it was taken for.
--
-- KEYS[1] epoch   KEYS[2] ids of credited grants   KEYS[3] pool
-- ARGV[1] epoch   ARGV[2] grant id   ARGV[3] nano   ARGV[4] seconds to keep both
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if redis.call('SADD', KEYS[2], ARGV[2]) == 0 then
  return 0
end
redis.call('INCRBY', KEYS[3], ARGV[3])
-- Both outlive the month they are for, then go: nothing is left of a tenant that stopped calling.
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
