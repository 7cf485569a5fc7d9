-- Give back what reservations held too much. Idempotent: a reservation is there once.
--
-- KEYS: the limits, as at admission   then a reservation of each request
-- ARGV[1] the rules of the limits, then three of each but those of rule p, as at admission
-- then, of each request, what it used: "nano tokens_in tokens_out"
-- Answers, of each, what was given back to each pool; -1 when there is no such reservation (any
-- more).
--
-- A request that was admitted has been one, whatever came of it: requests are not given back. What
-- several give back to a limit is written once.
local call = redis.call
local text = string.format
local rules, first = ARGV[1], 2
local limits = #rules
for i = 1, limits do
  if string.sub(rules, i, i) ~= 'p' then
    first = first + 3
  end
end

local answers, found = {}, {}
local spent, back, tokens_in, tokens_out, tokens = 0, 0, 0, 0, 0
for n = 1, #KEYS - limits do
  local key = KEYS[limits + n]
  local record = call('GETDEL', key)
  if record then
    local held_nano, held_in, held_out = string.match(record, '^(%d+) (%d+) (%d+)\n')
    local used_nano, used_in, used_out = string.match(ARGV[first + n - 1], '^(%d+) (%d+) (%d+)$')
    local nano = math.max(0, held_nano - used_nano)
    found[#found + 1] = key
    spent, back = spent + held_nano - nano, back + nano
    tokens_in = tokens_in + math.max(0, held_in - used_in)
    tokens_out = tokens_out + math.max(0, held_out - used_out)
    tokens = tokens + math.max(0, held_in + held_out - used_in - used_out)
    answers[n] = text('%.0f', nano)
  else
    answers[n] = -1
  end
end

local units, at = {r = 0, i = tokens_in, o = tokens_out, t = tokens}, 2
for i = 1, limits do
  local rule, key = string.sub(rules, i, i), KEYS[i]
  local count, interval = units[ARGV[at]], ARGV[at + 1]
  if rule == 'b' then
    at = at + 3
  end
  if rule == 'p' or rule == 'b' then
    if spent + back > 0 and call('EXISTS', key) == 1 then  -- else it ended
      call('HINCRBY', key, 'spent', text('%.0f', spent))
      if back > 0 then
        call('HINCRBY', key, 'left', text('%.0f', back))
      end
    end
  else
    at = at + 3
    if rule == 'z' or rule == 'Z' then
      for _, reservation in ipairs(found) do
        call('ZREM', key, reservation)
      end
    elseif count > 0 then
      local counted = call('GET', key)
      if counted and (rule == 'c' or rule == 'C') then
        call('DECRBY', key, text('%.0f', count))
      elseif counted then
        local clock = call('TIME')
        local now = (tonumber(clock[1]) - 1700000000) * 1000000 + tonumber(clock[2])
        local arrival = tonumber(counted) - count * tonumber(interval)
        if arrival > now then
          call('SET', key, text('%.3f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
        else
          call('DEL', key)
        end
      end
    end
  end
end
return answers
