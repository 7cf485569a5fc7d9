-- Admissions under one policy for one model: each all or nothing, one after the other, in one call.
-- Every key shares the organisation's hash tag.
--
-- KEYS[1] version   KEYS[2] epoch   KEYS[3] hits   then the limits   then a reservation of each
-- ARGV[1] policy version the gateway holds
-- ARGV[2] the epoch in which that version was read from PostgreSQL; empty when it was held before
-- ARGV[3] epoch to open when there is none
-- ARGV[4] reservation lifetime in seconds; "0" where nothing would have to be given back
-- ARGV[5] what a reservation is written down as, after its worst case: "\nthe limits\nthe rules"
-- ARGV[6] the rules of the limits, a letter each, in the order of their keys
-- then, of each limit but those of rule p, three: its unit, two numbers
-- then, of each admission, its worst case: "nano tokens_in tokens_out"
--
-- Rules (in capitals: count, and refuse nothing):
--   g  rate, GCRA: microseconds per unit, units at once. A theoretical arrival time
--   c  calendar counter: units, seconds to keep it
--   z  at once: how many. A sorted set of reservations by deadline
--   p  pool of a budget. A hash, in nano: left (neither spent nor held by an open request),
--      credited and spent in this epoch, granted in the window so far
--   b  pool that an amount bounds, which may have fallen since: p, and of what it has left nobody
--      gets what was granted above that amount
-- Units: r requests, i input tokens, o output tokens, t both.
--
-- Answers {epoch, and of each admission: {"ok", and of each limit what is left: in its unit, or for
-- a pool left - granted (nil: nothing was granted yet)} or {"stale"}
-- or {"limit", its number from 1, microseconds until it would pass; -1: never}
-- or {"budget", its number, what its pool has left, what open requests hold of it, what it was
-- credited, the revision of its window that it was told of last}}.
--
-- Pools come last: whoever is over a rate cannot make the gateway ask PostgreSQL for a block. What
-- is counted is read once and written once, however many ask: most of what this costs Redis is its
-- calls. Nothing of an admission counts before all its limits have passed.
--
-- Numbers are doubles here: integers are exact to 2^53 nano, nine million of the currency's units,
-- which is far above any one pool (a pool is a few granted blocks). Time is counted in microseconds
-- since 1,700,000,000 s, which leaves fractions of 1/128.
local call = redis.call
local text = string.format
local known = call('MGET', KEYS[1], KEYS[2])
local version, epoch = known[1], known[2]
if not epoch then
  epoch = ARGV[3]
  call('SET', KEYS[2], epoch)
end

local rules, first = ARGV[6], 7
local limits = #rules
local reservations = 3 + limits
local asked = #KEYS - reservations
local answers = {epoch}

local stale
if ARGV[2] == '' then
  -- Absent means this Redis is new: only PostgreSQL knows what is current.
  stale = version ~= ARGV[1]
else
  -- Read in this epoch: else the change that made it stale may have been told to the Redis before
  -- this one, and whoever made it told that it is in force.
  stale = ARGV[2] ~= epoch or (version and tonumber(version) > tonumber(ARGV[1]))
end
if stale then
  for n = 1, asked do
    answers[n + 1] = {'stale'}
  end
  return answers
end
if ARGV[2] ~= '' then
  call('SET', KEYS[1], ARGV[1])
end

-- Of each limit: its rule, its key, what it counts, what is counted so far, and what was added.
local watched, now = {}, 0
for i = 1, limits do
  local rule, key = string.sub(rules, i, i), KEYS[3 + i]
  local limit = {rule = rule, key = key, added = 0, hits = 0}
  if rule == 'p' or rule == 'b' then
    local pool = call('HMGET', key, 'left', 'granted')
    limit.left, limit.granted, limit.above = tonumber(pool[1] or '0'), tonumber(pool[2] or ''), 0
    if rule == 'b' then
      limit.above = math.max(0, (limit.granted or 0) - tonumber(ARGV[first + 1]))
      first = first + 3
    end
  else
    if now == 0 then
      local clock = call('TIME')
      now = (tonumber(clock[1]) - 1700000000) * 1000000 + tonumber(clock[2])
    end
    limit.unit, limit.a, limit.b = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
    limit.refuses = rule == 'g' or rule == 'c' or rule == 'z'
    first = first + 3
    if rule == 'g' or rule == 'G' then
      limit.window = limit.a * limit.b
      limit.ahead = math.max(0, tonumber(call('GET', key) or '0') - now)
    elseif rule == 'c' or rule == 'C' then
      limit.counted = tonumber(call('GET', key) or '0')
    else
      limit.open = call('ZCOUNT', key, now, '+inf')
      limit.members = {}
    end
  end
  watched[i] = limit
end

-- What one admission leaves of a limit, and what it is refused with, where it is.
local function look(limit, nano, units)
  local rule, wait, left = limit.rule, nil, nil
  if rule == 'p' or rule == 'b' then
    if limit.left - limit.above < nano then
      local pool = call('HMGET', limit.key, 'left', 'credited', 'spent', 'revision')
      local credited = pool[2] or '0'
      local held = tonumber(credited) - tonumber(pool[3] or '0') - limit.left
      local left = text('%.0f', limit.left - limit.above)
      return nil, {'budget', 0, left, text('%.0f', held), credited, pool[4] or '0'}
    end
    return limit.granted and limit.left - nano - limit.granted or false
  elseif rule == 'g' or rule == 'G' then
    local count = units[limit.unit]
    local ahead = limit.ahead + count * limit.a
    -- A hundredth of a unit is what sums of fractions may be off by.
    if ahead > limit.window + limit.a / 100 then
      wait = count > limit.b and -1 or math.ceil(ahead - limit.window)
      ahead = limit.window
    end
    limit.next = ahead
    left = math.floor((limit.window - ahead) / limit.a + 0.01)
  elseif rule == 'c' or rule == 'C' then
    local count = units[limit.unit]
    local counted = limit.counted + limit.added + count
    if counted > limit.a then
      wait = count > limit.a and -1 or 0
    end
    left = limit.a - counted
  else
    local open = limit.open + limit.added + 1
    if open > limit.a then
      wait = limit.a < 1 and -1 or 0
    end
    left = limit.a - open
  end
  if wait then
    limit.hits = limit.hits + 1
    if limit.refuses then
      return nil, {'limit', 0, wait}
    end
    left = 0
  end
  return left
end

for n = 1, asked do
  local worst = ARGV[first + n - 1]
  local nano, tokens_in, tokens_out = string.match(worst, '^(%d+) (%d+) (%d+)$')
  nano = tonumber(nano)
  local units
  if now > 0 then
    units = {r = 1, i = tonumber(tokens_in), o = tonumber(tokens_out)}
    units.t = units.i + units.o
  end
  local answer, refusal = {'ok'}, nil
  for i = 1, limits do
    answer[i + 1], refusal = look(watched[i], nano, units)
    if refusal then
      refusal[2] = i
      break
    end
  end
  answers[n + 1] = refusal or answer
  if not refusal then
    for i = 1, limits do
      local limit = watched[i]
      local rule = limit.rule
      if rule == 'p' or rule == 'b' then
        limit.left, limit.added = limit.left - nano, limit.added + nano
      elseif rule == 'g' or rule == 'G' then
        limit.ahead, limit.added = limit.next, 1
      elseif rule == 'c' or rule == 'C' then
        limit.added = limit.added + units[limit.unit]
      else
        limit.added = limit.added + 1
        limit.members[limit.added] = KEYS[reservations + n]
      end
    end
    if ARGV[4] ~= '0' then
      -- Whoever finds it can give it back, also when the worker that made it is gone.
      call('SET', KEYS[reservations + n], worst .. ARGV[5], 'EX', ARGV[4])
    end
  end
end

for i = 1, limits do
  local limit = watched[i]
  local rule, key, added = limit.rule, limit.key, limit.added
  if added == 0 then
    -- Nothing to write down.
  elseif rule == 'p' or rule == 'b' then
    call('HINCRBY', key, 'left', text('-%.0f', added))
  elseif rule == 'g' or rule == 'G' then
    call('SET', key, text('%.3f', now + limit.ahead), 'PX', math.ceil(limit.ahead / 1000) + 1)
  elseif rule == 'c' or rule == 'C' then
    if call('INCRBY', key, text('%.0f', added)) == added then
      call('EXPIRE', key, limit.b)
    end
  else
    local deadline = text('%.0f', now + ARGV[4] * 1000000)
    call('ZREMRANGEBYSCORE', key, '-inf', '(' .. text('%.0f', now))
    for _, member in ipairs(limit.members) do
      call('ZADD', key, deadline, member)
    end
    call('EXPIRE', key, ARGV[4])
  end
  if limit.hits > 0 then
    call('HINCRBY', KEYS[3], key, limit.hits)
    call('EXPIRE', KEYS[3], 86400)
  end
end
return answers
