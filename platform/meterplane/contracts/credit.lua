-- Credit a granted block to a pool, once, and only in the epoch it was taken for.
--
-- KEYS[1] epoch   KEYS[2] ids of credited grants   KEYS[3] pool
-- ARGV[1] epoch   ARGV[2] grant id   ARGV[3] nano   ARGV[4] seconds to keep the ids
-- ARGV[5] all that is granted of the window now   ARGV[6] its revision
-- ARGV[7] seconds to keep the pool; "0": for ever
-- Answers 1 if it was credited now, 0 if it was before, -1 if that epoch is over.
--
-- Nought nano with a newer revision only tells what is granted: a stranded grant was returned.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local revision = tonumber(redis.call('HGET', KEYS[3], 'revision') or '-1')
if tonumber(ARGV[6]) > revision then
  redis.call('HSET', KEYS[3], 'granted', ARGV[5], 'revision', ARGV[6])
end
local credited = redis.call('SADD', KEYS[2], ARGV[2])
if credited == 1 then
  redis.call('HINCRBY', KEYS[3], 'left', ARGV[3])
  redis.call('HINCRBY', KEYS[3], 'credited', ARGV[3])
end
-- Both outlive the window they are for, then go: nothing is left of a tenant that stopped calling.
-- What a pool holds of a window that never ends is not withheld from one that calls again.
redis.call('EXPIRE', KEYS[2], ARGV[4])
if ARGV[7] == '0' then
  redis.call('PERSIST', KEYS[3])
else
  redis.call('EXPIRE', KEYS[3], ARGV[7])
end
return credited
