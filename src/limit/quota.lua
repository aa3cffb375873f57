-- A report on a quota, perhaps with a wish: the same as `take_quota` in shared.rs, decision for decision.
-- Times are whole microseconds. Amounts are exact up to 2^53: of money, nine million dollars in one period.
local key = KEYS[1]
local node, ledger = ARGV[1], ARGV[2]
local incarnation, version = tonumber(ARGV[3]), tonumber(ARGV[4])
local out, ends_at = tonumber(ARGV[5]), tonumber(ARGV[6])
local ledger_version, ledger_used = tonumber(ARGV[7]), tonumber(ARGV[8])
local least, most, limit = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local period_ends = tonumber(ARGV[12])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function whole(number) return string.format('%.0f', number) end

if ledger_version >= 0 then
  local stored = redis.call('HGET', key, 'l:' .. ledger)
  local its_version = stored and tonumber(string.match(stored, '^(%d+):'))
  if not its_version or ledger_version > its_version then
    redis.call('HSET', key, 'l:' .. ledger, whole(ledger_version) .. ':' .. whole(ledger_used))
  end
end

local fields = redis.call('HGETALL', key)
local spent, others, told_version, told_used, stale = 0, 0, -1, 0, false
for place = 1, #fields, 2 do
  local kind, name = string.match(fields[place], '^(.):(.*)$')
  if kind == 'l' then
    local its_version, used = string.match(fields[place + 1], '^(%d+):(-?%d+)$')
    spent = spent + tonumber(used)
    if name == ledger then told_version, told_used = tonumber(its_version), tonumber(used) end
  elseif kind == 's' then
    local its_incarnation, its_version, held, until_time = string.match(fields[place + 1], '^(%d+):(%d+):(-?%d+):(%d+)$')
    if tonumber(until_time) <= now then
      redis.call('HDEL', key, fields[place])
    elseif name ~= node then
      others = others + tonumber(held)
    else
      its_incarnation = tonumber(its_incarnation)
      stale = its_incarnation > incarnation or (its_incarnation == incarnation and tonumber(its_version) >= version)
    end
  end
end

local granted = 0
if not stale then
  local room = limit - spent - others - out
  if least >= 0 and room >= least then granted = math.min(room, most) end
  redis.call('HSET', key, 's:' .. node,
    whole(incarnation) .. ':' .. whole(version) .. ':' .. whole(out + granted) .. ':' .. whole(ends_at))
end
-- What is settled late finds its period for 48 hours more.
if period_ends > 0 then redis.call('PEXPIREAT', key, whole(math.floor(period_ends / 1000) + 172800000)) end
return { whole(now), whole(spent), whole(told_version), whole(told_used), whole(others), whole(granted) }
