-- Lists. The writes stay as they came (a log), so that plain producers and consumers of a queue may work between prepare
-- and commit. For the reads of the branch itself, the list is
--   L reversed  ++  the keyspace's elements lo .. hi-1, those in `over` replaced  ++  R

local function begin_list(e)
  if begin(e, 'list') then
    local n = e.base and call('LLEN', e.k) or 0
    e.L, e.R, e.lo, e.hi, e.over, e.log = {}, {}, 0, n, {}, {}
  end
end

flushers.list = function(e, out)
  for _, write in ipairs(e.log) do out[#out + 1] = write end
end

-- The log only: a list of the keyspace that is read has no fields of its own yet.
local function length(e)
  if e.kind == 'list' then return #e.L + e.hi - e.lo + #e.R end
  return call('LLEN', e.k)
end

-- Elements first .. last, from 0, both inside the list.
local function slice(e, first, last)
  bounded(last - first + 1)
  if e.kind ~= 'list' then return call('LRANGE', e.k, first, last) end
  local result, left, middle = {}, #e.L, e.hi - e.lo
  for i = first, math.min(last, left - 1) do result[#result + 1] = e.L[left - i] end
  local from, to = math.max(first - left, 0), math.min(last - left, middle - 1)
  if from <= to then
    local base = call('LRANGE', e.k, e.lo + from, e.lo + to)
    for i = from, to do result[#result + 1] = e.over[e.lo + i] or base[i - from + 1] end
  end
  for i = math.max(first - left - middle, 0), last - left - middle do
    result[#result + 1] = e.R[i + 1]
  end
  return result
end

-- Drops n elements from one end of a part that is an array, from its beginning or its end.
local function drop_items(list, n, from_end)
  if n <= 0 then return list end
  local rest = {}
  local first = from_end and 1 or n + 1
  for i = first, from_end and #list - n or #list do rest[#rest + 1] = list[i] end
  return rest
end

local function drop_left(e, n)
  local part = math.min(n, #e.L)
  e.L, n = drop_items(e.L, part, true), n - part
  part = math.min(n, e.hi - e.lo)
  e.lo, n = e.lo + part, n - part
  e.R = drop_items(e.R, n, false)
end

local function drop_right(e, n)
  local part = math.min(n, #e.R)
  e.R, n = drop_items(e.R, part, true), n - part
  part = math.min(n, e.hi - e.lo)
  e.hi, n = e.hi - part, n - part
  e.L = drop_items(e.L, n, false)
end

local function logged(e, ...)
  e.log[#e.log + 1] = {...}
  if length(e) == 0 then emptied(e) end
end

local function push(i, n, name)
  local e = entry(ARGV[i])
  is_kind(e, 'list')
  begin_list(e)
  local items = name == 'LPUSH' and e.L or e.R
  local write = {name, e.k}
  for j = i + 1, i + n - 1 do
    items[#items + 1] = ARGV[j]
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
  local size = length(e)
  local taken = math.min(wanted, size)
  local items
  if name == 'LPOP' then
    items = slice(e, 0, taken - 1)
    drop_left(e, taken)
  else
    items = slice(e, size - taken, size - 1)
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
local function indices(i, size)
  local first, last = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if first < 0 then first = math.max(first + size, 0) end
  if last < 0 then last = last + size end
  if first > last or first >= size then return nil end
  return first, math.min(last, size - 1)
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
  local size = length(e)
  local first, last = indices(i + 1, size)
  if first then
    drop_left(e, first)
    drop_right(e, size - 1 - last)
  else
    drop_left(e, size)
  end
  logged(e, 'LTRIM', e.k, ARGV[i + 1], ARGV[i + 2])
  return 'OK'
end

ops.LSET = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then refuse('no_such_key', 'no such key') end
  local size, index = length(e), tonumber(ARGV[i + 1])
  if index < 0 then index = index + size end
  if index < 0 or index >= size then refuse('out_of_range', 'the index is outside the list') end
  begin_list(e)
  local left, middle = #e.L, e.hi - e.lo
  if index < left then
    e.L[left - index] = ARGV[i + 2]
  elseif index < left + middle then
    e.over[e.lo + index - left] = ARGV[i + 2]
  else
    e.R[index - left - middle + 1] = ARGV[i + 2]
  end
  e.log[#e.log + 1] = {'LSET', e.k, ARGV[i + 1], ARGV[i + 2]}
  return 'OK'
end

ops.LREM = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'list') then return 0 end
  local size, limit, value = length(e), tonumber(ARGV[i + 1]), ARGV[i + 2]
  local items = slice(e, 0, size - 1)
  local gone, removed = {}, 0
  local first, last, step = 1, size, 1
  if limit < 0 then first, last, step = size, 1, -1 end
  local most = limit == 0 and size or math.abs(limit)
  for j = first, last, step do
    if removed < most and items[j] == value then
      gone[j] = true
      removed = removed + 1
    end
  end
  if removed == 0 then return 0 end
  begin_list(e)
  local rest = {}
  for j = 1, size do
    if not gone[j] then rest[#rest + 1] = items[j] end
  end
  e.L, e.R, e.lo, e.hi = {}, rest, 0, 0
  logged(e, 'LREM', e.k, ARGV[i + 1], value)
  return removed
end
