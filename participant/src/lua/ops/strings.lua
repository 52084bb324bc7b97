-- Strings. ARGV at i: the handler's arguments, n of them, as common::command makes them canonical.

-- The value of a string, false if the key does not exist, nil if it is of another type. Its length is asked for first: a
-- value that is too large is not read.
local function peek(e)
  if e.ty == 'none' then return false end
  if e.ty and e.ty ~= 'string' then return nil end
  if e.v ~= nil then return e.v end
  spend(CALL_STEPS)
  local bytes = try('STRLEN', e.k)
  if type(bytes) == 'table' then
    if not match(bytes.err, '^WRONGTYPE') then error(bytes) end
    typ(e)
    return nil
  end
  reading(bytes)
  local value = call('GET', e.k)
  e.ty = value and 'string' or 'none'
  e.bty = e.ty
  if value then e.v = value end
  return value
end

local function str(e)
  local value = peek(e)
  if value == nil then wrong_type() end
  return value
end

-- A new value that leaves the expiry as it is.
local function set_value(e, value)
  if e.ty == 'none' then e.exp = false end
  expiry(e)
  e.v, e.vd, e.ty, e.w = value, true, 'string', true
end

-- A new value over whatever there was. `exp` is ms or false.
local function overwrite(e, value, exp)
  clear(e)
  e.v, e.vd, e.ty, e.exp = value, true, 'string', exp
  -- Redis would keep the value until somebody looks; nobody can see it.
  if exp and exp <= now() then clear(e) end
end

ops.GET = function(i) return str(entry(ARGV[i])) end

ops.STRLEN = function(i)
  local value = str(entry(ARGV[i]))
  return value and #value or 0
end

ops.GETRANGE = function(i)
  local value = str(entry(ARGV[i])) or ''
  local first, last = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if first < 0 then first = math.max(first + #value, 0) end
  if last < 0 then last = math.max(last + #value, 0) end
  last = math.min(last, #value - 1)
  if first > last then return '' end
  spend((last - first) / STEP_BYTES)
  return sub(value, first + 1, last + 1)
end

ops.SET = function(i)
  local e = entry(ARGV[i])
  local condition, kind = ARGV[i + 2], ARGV[i + 4]
  local old = false
  if ARGV[i + 3] == 'G' then old = str(e) end
  if condition ~= '' then
    local exists = typ(e) ~= 'none'
    if exists == (condition == 'N') then return old end
  end
  local exp = false
  if kind == 'K' then
    if typ(e) ~= 'none' then exp = expiry(e) end
  elseif kind == 'R' then
    exp = now() + tonumber(ARGV[i + 5])
  elseif kind == 'A' then
    exp = tonumber(ARGV[i + 5])
  end
  overwrite(e, ARGV[i + 1], exp)
  if ARGV[i + 3] == 'G' then return old end
  return 'OK'
end

ops.SETNX = function(i)
  local e = entry(ARGV[i])
  if typ(e) ~= 'none' then return 0 end
  overwrite(e, ARGV[i + 1], false)
  return 1
end

ops.GETDEL = function(i)
  local e = entry(ARGV[i])
  local old = str(e)
  if old then clear(e) end
  return old
end

ops.APPEND = function(i)
  local e = entry(ARGV[i])
  local value, part = str(e) or '', ARGV[i + 1]
  local bytes = #value + #part
  if bytes > VALUE_BYTES_MAX then refuse('too_large', 'the value would be too large') end
  -- The whole value is put together anew.
  spend(8 * bytes / STEP_BYTES)
  set_value(e, value .. part)
  return bytes
end

ops.SETRANGE = function(i)
  local e = entry(ARGV[i])
  local value, offset, part = str(e) or '', tonumber(ARGV[i + 1]), ARGV[i + 2]
  -- A short op may ask for many zeros: they cost what it costs to read as many bytes.
  local gap = math.max(offset - #value, 0)
  reading(gap)
  -- The whole value is put together anew, from up to four pieces.
  spend(8 * (#value + gap + #part) / STEP_BYTES)
  value = sub(value, 1, offset) .. string.rep('\0', gap) .. part .. sub(value, offset + #part + 1)
  set_value(e, value)
  return #value
end

ops.INCRBY = function(i)
  local e = entry(ARGV[i])
  local sum = add_integer(str(e) or '0', ARGV[i + 1])
  set_value(e, sum)
  return sum
end

ops.INCRBYFLOAT = function(i)
  local e = entry(ARGV[i])
  local sum = add_float(str(e) or '0', ARGV[i + 1])
  set_value(e, sum)
  return sum
end

ops.MGET = function(i, n)
  local reply = {}
  for j = 1, n do
    -- nil, not an error, for a key of another type
    reply[j] = peek(entry(ARGV[i + j - 1])) or false
  end
  return reply
end

ops.MSET = function(i, n)
  for j = i, i + n - 1, 2 do overwrite(entry(ARGV[j]), ARGV[j + 1], false) end
  return 'OK'
end
