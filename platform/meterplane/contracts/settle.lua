-- Give back what a reservation held too much. Idempotent: the reservation is there once.
--
-- KEYS[1] reservation   KEYS[2..] its limits, as at admission
-- ARGV[1] what the request cost in nano   ARGV[2] its input tokens   ARGV[3] its output tokens
-- ARGV[4] the rules of the limits, ARGV[5..] three of each that is no pool, as at admission
-- Answers what was given back to each pool, or -1 when there is no such reservation (any more).
--
-- A request that was admitted has been one, whatever came of it: requests are not given back.
local call = redis.call
local record = call('GET', KEYS[1])
if not record then
  return -1
end
call('DEL', KEYS[1])
local nano, tokens_in, tokens_out = string.match(record, '^(%d+) (%d+) (%d+)\n')
local back = math.max(0, nano - ARGV[1])
local spent = string.format('%.0f', nano - back)
back = string.format('%.0f', back)
local rules, units = ARGV[4], nil
if #ARGV > 4 then
  units = {r = 0, i = math.max(0, tokens_in - ARGV[2]), o = math.max(0, tokens_out - ARGV[3])}
  units.t = math.max(0, tokens_in + tokens_out - ARGV[2] - ARGV[3])
end
for i = 2, #KEYS do
  local at = 5 + (i - 2) * 3
  local rule, count = string.sub(rules, i - 1, i - 1), units and units[ARGV[at]]
  if rule == 'p' then
    if nano ~= '0' and call('EXISTS', KEYS[i]) == 1 then  -- else it ended
      call('HINCRBY', KEYS[i], 'spent', spent)
      if back ~= '0' then
        call('HINCRBY', KEYS[i], 'left', back)
      end
    end
  elseif rule == 'z' or rule == 'Z' then
    call('ZREM', KEYS[i], KEYS[1])
  elseif count > 0 then
    local counted = call('GET', KEYS[i])
    if counted and (rule == 'c' or rule == 'C') then
      call('DECRBY', KEYS[i], count)
    elseif counted then
      local clock = call('TIME')
      local now = (tonumber(clock[1]) - 1700000000) * 1000000 + tonumber(clock[2])
      local arrival = tonumber(counted) - count * tonumber(ARGV[at + 1])
      if arrival > now then
        call('SET', KEYS[i], string.format('%.3f', arrival), 'PX',
                   math.ceil((arrival - now) / 1000) + 1)
      else
        call('DEL', KEYS[i])
      end
    end
  end
end
return back
