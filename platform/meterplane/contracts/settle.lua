-- Give back what a reservation held too much. Idempotent: the reservation is there once.
--
-- KEYS[1] reservation   KEYS[2..] its limits, as at admission
-- ARGV[1] what the request cost in nano   ARGV[2] its input tokens   ARGV[3] its output tokens
-- ARGV[4..] four for each limit, as at admission
-- Answers what was given back to each pool, or -1 when there is no such reservation (any more).
--
-- A request that was admitted has been one, whatever came of it: requests are not given back.
local record = redis.call('GET', KEYS[1])
if not record then
  return -1
end
redis.call('DEL', KEYS[1])
local nano, tokens_in, tokens_out = string.match(record, '^(%d+) (%d+) (%d+)\n')
local back = math.max(0, nano - ARGV[1])
local units = {r = 0, i = math.max(0, tokens_in - ARGV[2]), o = math.max(0, tokens_out - ARGV[3])}
units.t = math.max(0, tokens_in + tokens_out - ARGV[2] - ARGV[3])
for i = 2, #KEYS do
  local at = 4 + (i - 2) * 4
  local rule, count = ARGV[at], units[ARGV[at + 1]]
  if rule == 'p' then
    if tonumber(nano) > 0 and redis.call('EXISTS', KEYS[i]) == 1 then  -- else it ended
      redis.call('HINCRBY', KEYS[i], 'held', '-' .. nano)
      redis.call('HINCRBY', KEYS[i], 'left', string.format('%.0f', back))
    end
  elseif rule == 'z' or rule == 'Z' then
    redis.call('ZREM', KEYS[i], KEYS[1])
  elseif count > 0 then
    local counted = redis.call('GET', KEYS[i])
    if counted and (rule == 'c' or rule == 'C') then
      redis.call('DECRBY', KEYS[i], count)
    elseif counted then
      local clock = redis.call('TIME')
      local now = (tonumber(clock[1]) - 1700000000) * 1000000 + tonumber(clock[2])
      local arrival = tonumber(counted) - count * tonumber(ARGV[at + 2])
      if arrival > now then
        redis.call('SET', KEYS[i], string.format('%.3f', arrival), 'PX',
                   math.ceil((arrival - now) / 1000) + 1)
      else
        redis.call('DEL', KEYS[i])
      end
    end
  end
end
return string.format('%.0f', back)
