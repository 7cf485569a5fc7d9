-- Give back what a reservation held too much. Idempotent: the reservation is there once.
--
-- KEYS[1] reservation   KEYS[2..] the same pools as at admission
-- ARGV[1] what the request cost in nano
-- Answers what was given back to each pool, or -1 when there is no such reservation (any more).
local held = redis.call('GET', KEYS[1])
if not held then
  return -1
end
redis.call('DEL', KEYS[1])
local back = tonumber(held) - tonumber(ARGV[1])
if back > 0 then
  for i = 2, #KEYS do
    redis.call('INCRBY', KEYS[i], string.format('%.0f', back))
  end
end
return string.format('%.0f', back)
