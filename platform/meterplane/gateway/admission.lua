-- One admission, all or nothing, in one call. Every key shares the organisation's hash tag.
--
-- KEYS[1] version   KEYS[2] epoch   KEYS[3] reservation   KEYS[4] hits   KEYS[5..] the limits
-- ARGV[1] policy version the gateway holds
-- ARGV[2] the epoch in which that version was read from PostgreSQL; empty when it was held before
-- ARGV[3] epoch to open when there is none
-- ARGV[4] reservation lifetime in seconds; "0" where nothing would have to be given back
-- ARGV[5] worst-case cost in nano   ARGV[6] input tokens at most   ARGV[7] output tokens at most
-- ARGV[8] what to write down as the reservation: "ARGV[5] ARGV[6] ARGV[7]\nthe limits\nthe rules"
-- ARGV[9] the rules of the limits, a letter each, in the order of KEYS[5..]
-- ARGV[10..] of each limit that is no pool three: its unit, two numbers
--
-- Rules (in capitals: count, and refuse nothing):
--   g  rate, GCRA: microseconds per unit, units at once. A theoretical arrival time
--   c  calendar counter: units, seconds to keep it
--   z  at once: how many. A sorted set of reservations by deadline
--   p  pool of a budget. A hash, in nano: left (neither spent nor held by an open request),
--      credited and spent in this epoch, granted in the window so far
-- Units: r requests, i input tokens, o output tokens, t both.
--
-- Answers {"ok", epoch, and of each limit what is left: in its unit, or for a pool left - granted
-- (nil: nothing was granted yet)} or {"stale", epoch}
-- or {"limit", its number from 1, microseconds until it would pass; -1: never}
-- or {"budget", its number, what its pool has left, what open requests hold of it, what it was
-- credited, epoch}.
--
-- Pools come last: whoever is over a rate cannot make the gateway ask PostgreSQL for a block.
-- Nothing is reserved or counted before all have passed.
--
-- Numbers are doubles here: integers are exact to 2^53 nano, nine million of the currency's units,
-- which is far above any one pool (a pool is a few granted blocks). Time is counted in microseconds
-- since 1,700,000,000 s, which leaves fractions of 1/128.
--
-- Most of what this costs Redis is its own arguments and calls: each is made where it is needed.
local call = redis.call
local known = call('MGET', KEYS[1], KEYS[2])
local version, epoch = known[1], known[2]
if not epoch then
  epoch = ARGV[3]
  call('SET', KEYS[2], epoch)
end

if ARGV[2] == '' then
  if version ~= ARGV[1] then
    -- Absent means this Redis is new: only PostgreSQL knows what is current.
    return {'stale', epoch}
  end
else
  -- Read in this epoch: else the change that made it stale may have been told to the Redis before
  -- this one, and whoever made it told that it is in force.
  if ARGV[2] ~= epoch or (version and tonumber(version) > tonumber(ARGV[1])) then
    return {'stale', epoch}
  end
  call('SET', KEYS[1], ARGV[1])
end

local cost, rules, limits = tonumber(ARGV[5]), ARGV[9], #KEYS
local now, units, arrivals
if #ARGV > 9 then
  local clock = call('TIME')
  now = (tonumber(clock[1]) - 1700000000) * 1000000 + tonumber(clock[2])
  units = {r = 1, i = tonumber(ARGV[6]), o = tonumber(ARGV[7])}
  units.t = units.i + units.o
  arrivals = {}
end

local answer = {'ok', epoch}
for i = 5, limits do
  local at = 10 + (i - 5) * 3
  local rule, wait = string.sub(rules, i - 4, i - 4), nil
  if rule == 'p' then
    local pool = call('HMGET', KEYS[i], 'left', 'granted')
    local left = tonumber(pool[1] or '0')
    if left < cost then
      pool = call('HMGET', KEYS[i], 'credited', 'spent')
      local credited = pool[1] or '0'
      local held = tonumber(credited) - tonumber(pool[2] or '0') - left
      return {'budget', i - 4, string.format('%.0f', left), string.format('%.0f', held),
              credited, epoch}
    end
    answer[i - 2] = pool[2] and left - cost - tonumber(pool[2])
  elseif rule == 'g' or rule == 'G' then
    local count, interval, depth = units[ARGV[at]], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local arrival = tonumber(call('GET', KEYS[i]) or '0')
    if arrival < now then
      arrival = now
    end
    local ahead, window = arrival + count * interval - now, interval * depth
    -- A hundredth of a unit is what sums of fractions may be off by.
    if ahead > window + interval / 100 then
      wait = count > depth and -1 or math.ceil(ahead - window)
      ahead = window
    end
    arrivals[i] = ahead
    answer[i - 2] = math.floor((window - ahead) / interval + 0.01)
  elseif rule == 'c' or rule == 'C' then
    local count, most = units[ARGV[at]], tonumber(ARGV[at + 1])
    local counted = tonumber(call('GET', KEYS[i]) or '0') + count
    if counted > most then
      wait = count > most and -1 or 0
    end
    answer[i - 2] = most - counted
  else
    local open, most = call('ZCOUNT', KEYS[i], now, '+inf') + 1, tonumber(ARGV[at + 1])
    if open > most then
      wait = most < 1 and -1 or 0
    end
    answer[i - 2] = most - open
  end
  if wait then
    call('HINCRBY', KEYS[4], KEYS[i], 1)
    call('EXPIRE', KEYS[4], 86400)
    if rule == 'g' or rule == 'c' or rule == 'z' then
      return {'limit', i - 4, wait}
    end
    answer[i - 2] = 0
  end
end

local taken = '-' .. ARGV[5]
for i = 5, limits do
  local at = 10 + (i - 5) * 3
  local rule = string.sub(rules, i - 4, i - 4)
  if rule == 'p' then
    if cost > 0 then
      call('HINCRBY', KEYS[i], 'left', taken)
    end
  elseif rule == 'g' or rule == 'G' then
    local ahead = arrivals[i]
    call('SET', KEYS[i], string.format('%.3f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1)
  elseif rule == 'c' or rule == 'C' then
    local count = units[ARGV[at]]
    if call('INCRBY', KEYS[i], count) == count then
      call('EXPIRE', KEYS[i], ARGV[at + 2])
    end
  else
    call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(' .. string.format('%.0f', now))
    call('ZADD', KEYS[i], string.format('%.0f', now + ARGV[4] * 1000000), KEYS[3])
    call('EXPIRE', KEYS[i], ARGV[4])
  end
end
if ARGV[4] ~= '0' then
  -- Whoever finds it can give it back, also when the worker that made it is gone.
  call('SET', KEYS[3], ARGV[8], 'EX', ARGV[4])
end
return answer
