-- One admission, all or nothing, in one call. Every key shares the organisation's hash tag.
--
-- KEYS[1] version   KEYS[2] rate   KEYS[3] epoch   KEYS[4] reservation   KEYS[5..] budget pools
-- ARGV[1] policy version the gateway holds
-- ARGV[2] "1" when that version was just read from PostgreSQL, "0" when it comes from a cache
-- ARGV[3] emission interval in microseconds (0: no rate limit)   ARGV[4] burst in requests
-- ARGV[5] worst-case cost in nano   ARGV[6] reservation lifetime in seconds
-- ARGV[7] epoch to open when there is none
--
-- Answers {"ok", remaining requests} or {"stale"} or {"rate", microseconds to wait, 0}
-- or {"budget", index of the short pool from 1, what it holds, epoch}.
--
-- The order is rate, then budget: whoever is over the rate cannot make the gateway ask PostgreSQL
-- for a block. Nothing is written before both have passed.
--
-- Numbers are doubles here: integers are exact to 2^53 nano, nine million of the currency's units,
-- which is far above any one pool (a pool is one granted block).
local version = redis.call('GET', KEYS[1])
local given = tonumber(ARGV[1])
if ARGV[2] == '1' then
  if version and tonumber(version) > given then
    return {'stale'}
  end
  redis.call('SET', KEYS[1], ARGV[1])
elseif not version or tonumber(version) ~= given then
  -- Absent means this Redis is new: only PostgreSQL knows what is current.
  return {'stale'}
end

local epoch = redis.call('GET', KEYS[3])
if not epoch then
  epoch = ARGV[7]
  redis.call('SET', KEYS[3], epoch)
end

local remaining = -1
local now, next_arrival
local interval = tonumber(ARGV[3])
if interval > 0 then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local window = interval * tonumber(ARGV[4])
  local arrival = tonumber(redis.call('GET', KEYS[2]) or '0')
  if arrival < now then
    arrival = now
  end
  next_arrival = arrival + interval
  if next_arrival - now > window then
    return {'rate', string.format('%.0f', next_arrival - now - window), 0}
  end
  remaining = math.floor((window - (next_arrival - now)) / interval)
end

local cost = tonumber(ARGV[5])
for i = 5, #KEYS do
  local held = tonumber(redis.call('GET', KEYS[i]) or '0')
  if held < cost then
    return {'budget', i - 4, string.format('%.0f', held), epoch}
  end
end

if interval > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', next_arrival), 'PX',
             math.ceil((next_arrival - now) / 1000) + 1)
end
if #KEYS > 4 then
  for i = 5, #KEYS do
    redis.call('DECRBY', KEYS[i], ARGV[5])
  end
  redis.call('SET', KEYS[4], ARGV[5], 'EX', ARGV[6])
end
return {'ok', remaining}
