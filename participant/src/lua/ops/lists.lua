-- Lists. The writes stay as they came (a log), so that plain producers and consumers of a queue may work between prepare
-- and commit. For the reads of the branch itself, the list is
--   L from its last to its first  ++  the keyspace's elements lo .. hi-1, those in `over` replaced  ++  R
-- L and R are arrays of which the places first .. last count, so that dropping elements at either end costs nothing.

local function part(items) return {first = 1, last = #items, items = items} end
local function size(p) return p.last - p.first + 1 end

local function begin_list(e)
  if begin(e, 'list') then
    local n = e.base and base_count(e, 'LLEN') or 0
    e.L, e.R, e.lo, e.hi, e.over, e.log = part({}), part({}), 0, n, {}, {}
  end
end

flushers.list = function(e, out)
  for _, write in ipairs(e.log) do out[#out + 1] = write end
end

-- The log only: a list of the keyspace that is read has no fields of its own yet.
local function length(e)
  if e.kind == 'list' then return size(e.L) + e.hi - e.lo + size(e.R) end
  return base_count(e, 'LLEN')
end

-- Elements first .. last, from 0, both inside the list.
local function slice(e, first, last)
  bounded(last - first + 1)
  if e.kind ~= 'list' then
    reading_elements(e, last - first + 1, length(e))
    return call('LRANGE', e.k, first, last)
  end
  spend(last - first + 1)
  local result, left, middle = {}, size(e.L), e.hi - e.lo
  for i = first, math.min(last, left - 1) do result[#result + 1] = e.L.items[e.L.last - i] end
  local from, to = math.max(first - left, 0), math.min(last - left, middle - 1)
  if from <= to then
    reading_elements(e, to - from + 1, base_count(e, 'LLEN'))
    local base = call('LRANGE', e.k, e.lo + from, e.lo + to)
    for i = from, to do result[#result + 1] = e.over[e.lo + i] or base[i - from + 1] end
  end
  for i = math.max(first - left - middle, 0), last - left - middle do
    result[#result + 1] = e.R.items[e.R.first + i]
  end
  return result
end

local function drop_left(e, n)
  local dropped = math.min(n, size(e.L))
  e.L.last, n = e.L.last - dropped, n - dropped
  dropped = math.min(n, e.hi - e.lo)
  e.lo, n = e.lo + dropped, n - dropped
  e.R.first = e.R.first + n
end

local function drop_right(e, n)
  local dropped = math.min(n, size(e.R))
  e.R.last, n = e.R.last - dropped, n - dropped
  dropped = math.min(n, e.hi - e.lo)
  e.hi, n = e.hi - dropped, n - dropped
  e.L.first = e.L.first + n
end

local function logged(e, ...)
  e.log[#e.log + 1] = {...}
  if length(e) == 0 then emptied(e) end
end

local function push(i, n, name)
  local e = entry(ARGV[i])
  is_kind(e, 'list')
  begin_list(e)
  local to = name == 'LPUSH' and e.L or e.R
  local write = {name, e.k}
  for j = i + 1, i + n - 1 do
    to.last = to.last + 1
    to.items[to.last] = ARGV[j]
    write[#write + 1] = ARGV[j]
  end
  e.log[#e.log + 1] = write
  return length(e)
end

ops.LPUSH = function(i, n) return push(i, n, 'LPUSH') end
ops.RPUSH = function(i, n) return push(i, n, 'RPUSH') end

local function pop(i, n, name)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then return false end
  local wanted = n == 2 and tonumber(ARGV[i + 1]) or 1
  if wanted == 0 then return {} end
  begin_list(e)
  local n_now = length(e)
  local taken = math.min(wanted, n_now)
  local items
  if name == 'LPOP' then
    items = slice(e, 0, taken - 1)
    drop_left(e, taken)
  else
    items = slice(e, n_now - taken, n_now - 1)
    drop_right(e, taken)
    for j = 1, math.floor(taken / 2) do items[j], items[taken + 1 - j] = items[taken + 1 - j], items[j] end
  end
  if taken == 1 then
    logged(e, name, e.k)
  else
    logged(e, name, e.k, format('%.0f', taken))
  end
  if n == 2 then return items end
  return items[1]
end

ops.LPOP = function(i, n) return pop(i, n, 'LPOP') end
ops.RPOP = function(i, n) return pop(i, n, 'RPOP') end

ops.LLEN = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'list') and length(e) or 0
end

-- First and last element, from 0, that two indices of LRANGE or LTRIM mean; nil if they mean none.
local function indices(i, n)
  local first, last = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if first < 0 then first = math.max(first + n, 0) end
  if last < 0 then last = last + n end
  if first > last or first >= n then return nil end
  return first, math.min(last, n - 1)
end

ops.LRANGE = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then return {} end
  local first, last = indices(i + 1, length(e))
  if not first then return {} end
  return slice(e, first, last)
end

ops.LTRIM = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then return 'OK' end
  begin_list(e)
  local n = length(e)
  local first, last = indices(i + 1, n)
  if first then
    drop_left(e, first)
    drop_right(e, n - 1 - last)
  else
    drop_left(e, n)
  end
  logged(e, 'LTRIM', e.k, ARGV[i + 1], ARGV[i + 2])
  return 'OK'
end

ops.LSET = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then refuse('no_such_key', 'no such key') end
  local n, index = length(e), tonumber(ARGV[i + 1])
  if index < 0 then index = index + n end
  if index < 0 or index >= n then refuse('out_of_range', 'the index is outside the list') end
  begin_list(e)
  local left, middle = size(e.L), e.hi - e.lo
  if index < left then
    e.L.items[e.L.last - index] = ARGV[i + 2]
  elseif index < left + middle then
    e.over[e.lo + index - left] = ARGV[i + 2]
  else
    e.R.items[e.R.first + index - left - middle] = ARGV[i + 2]
  end
  e.log[#e.log + 1] = {'LSET', e.k, ARGV[i + 1], ARGV[i + 2]}
  return 'OK'
end

ops.LREM = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then return 0 end
  local n, limit, value = length(e), tonumber(ARGV[i + 1]), ARGV[i + 2]
  local items = slice(e, 0, n - 1)
  spend(n)
  local gone, removed = {}, 0
  local first, last, step = 1, n, 1
  if limit < 0 then first, last, step = n, 1, -1 end
  local most = limit == 0 and n or math.abs(limit)
  for j = first, last, step do
    if removed < most and items[j] == value then
      gone[j] = true
      removed = removed + 1
    end
  end
  if removed == 0 then return 0 end
  begin_list(e)
  local rest = {}
  for j = 1, n do
    if not gone[j] then rest[#rest + 1] = items[j] end
  end
  e.L, e.R, e.lo, e.hi = part({}), part(rest), 0, 0
  logged(e, 'LREM', e.k, ARGV[i + 1], value)
  return removed
end
