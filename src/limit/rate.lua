-- A report on a bucket, perhaps with a wish: the same as `take_rate` in shared.rs, decision for decision.
-- All numbers are whole microseconds (2^53 of them last until the year 2255), but for the cell, which is nanoseconds.
local key = KEYS[1]
local field = 'n:' .. ARGV[1]
local incarnation, version = tonumber(ARGV[2]), tonumber(ARGV[3])
local total, acked, floor, cell = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local least, most, capacity, own = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function whole(number) return string.format('%.0f', number) end

local known = redis.call('HMGET', key, 'tat', 'cell', field)
local tat, old_cell = tonumber(known[1] or floor), tonumber(known[2] or cell)
local before = acked
if known[3] then
  local its_incarnation, its_version, its_total = string.match(known[3], '^(%d+):(%d+):(-?%d+):%d+$')
  its_incarnation = tonumber(its_incarnation)
  if its_incarnation > incarnation or (its_incarnation == incarnation and tonumber(its_version) >= version) then
    return { whole(now), whole(tat), '0' }
  end
  if its_incarnation == incarnation then before = tonumber(its_total) end
elseif redis.call('HLEN', key) >= 2 + 32 then
  -- Of many nodes those that were not heard for an hour are forgotten, as instances come and go.
  local fields = redis.call('HGETALL', key)
  for place = 1, #fields, 2 do
    local at = string.match(fields[place], '^n:') and string.match(fields[place + 1], ':(%d+)$')
    if at and tonumber(at) + 3600000000 <= now then redis.call('HDEL', key, fields[place]) end
  end
end

if old_cell ~= cell then tat = now + math.floor(math.max(tat - now, 0) * cell / math.max(old_cell, 1)) end
-- As `joined` in shared.rs. Differences first: a sum of two could be more than is exact.
local added = total - before
local ahead = math.max(tat - now + added, math.min(own - now, math.max(tat - now, 0) + added), 0)
local granted = 0
if least >= 0 and capacity - ahead >= least then granted = math.min(capacity - ahead, most) end
tat = math.min(now + ahead + granted, 9007199254740991)

redis.call('HSET', key, 'tat', whole(tat), 'cell', whole(cell), field,
  whole(incarnation) .. ':' .. whole(version) .. ':' .. whole(total + granted) .. ':' .. whole(now))
-- A bucket that is full is as good as none; some seconds more, for clocks that differ.
redis.call('PEXPIRE', key, whole(math.ceil((tat - now) / 1000) + 10000))
return { whole(now), whole(tat), whole(granted) }
