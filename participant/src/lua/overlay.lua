-- What the ops of a branch see: the data as it would be after the ops before them. Nothing here writes to the keyspace;
-- at the end each entry says by which writes, none of which can fail, its key gets there.
--
-- An entry:  k     the key
--            ty    type now, nil if it was not asked; bty: type in the keyspace
--            base  whether the key's content in the keyspace still lies below what is kept here
--            exp   time of expiry now: ms, false for none, nil if it was not asked; bexp: in the keyspace
--            w     whether the branch wrote to the key; vd: whether a string's value is new; v: a string's value
--            kind  the collection type that the fields below are of
--            m     member -> value, false if it is known to be absent; tl: members written, in order; t: the same, as a set
--            d     change of the count of members
--            fx    fields of a hash that the branch wrote -> when they expire: ms, false for never
--            all   the members in the keyspace, once they were read; bn: their count; usage: their bytes, about
-- (lists, streams and sorted sets have more: see their files)

-- Which server this is. Valkey calls itself Redis 7.2.4 for the sake of those who ask.
local REDIS_VERSION = redis.REDIS_VERSION_NUM or 0
local VALKEY_VERSION = redis.VALKEY_VERSION_NUM
-- Whether the fields of hashes expire by themselves: from Redis 7.4, from Valkey 9.0.
local FIELDS_EXPIRE = VALKEY_VERSION and VALKEY_VERSION >= 0x090000
  or not VALKEY_VERSION and REDIS_VERSION >= 0x070400

local ents, order
local ops, flushers = {}, {}
local branch_stars, reply_at

local function wrong_type() refuse('wrong_type', 'the key holds another type') end

local function time_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local clock
-- Milliseconds; one reading for a whole call, as Redis has one for a whole transaction.
local function now()
  if not clock then clock = time_ms() end
  return clock
end

local function ms_text(ms)
  -- A double above this prints as 2^63, which is no integer of 64 bits.
  if ms > 9223372036854774784 then ms = 9223372036854774784 end
  return format('%.0f', ms)
end

local function entry(k)
  local e = ents[k]
  if not e then
    e = {k = k, base = true}
    ents[k] = e
    order[#order + 1] = e
  end
  return e
end

local function typ(e)
  if not e.ty then
    e.ty = call('TYPE', e.k).ok
    e.bty = e.ty
  end
  return e.ty
end

-- When a key of the keyspace expires: ms, false for never and for a key that is not there. Redis
-- 6.2 only says how long is left, by a clock that runs on: it is asked again until it is read
-- within one millisecond of that clock. By the call's own time each write would move the expiry.
local function expires_at(k)
  if redis.REDIS_VERSION_NUM then
    local at_ms = call('PEXPIRETIME', k)
    return at_ms >= 0 and at_ms
  end
  while true do
    local before, left = time_ms(), call('PTTL', k)
    if left < 0 then return false end
    if time_ms() == before then return before + left end
  end
end

local function expiry(e)
  if e.exp == nil then
    e.exp = expires_at(e.k)
    e.bexp = e.exp
  end
  return e.exp
end

-- Whether the key exists as this kind; it is an error if it exists as another.
local function is_kind(e, kind)
  local ty = typ(e)
  if ty == kind then return true end
  if ty == 'none' then return false end
  wrong_type()
end

-- The key's content is gone, and so is its expiry.
local function clear(e)
  e.base, e.ty, e.exp, e.w = false, 'none', false, true
  e.v, e.vd, e.kind, e.m, e.t, e.tl, e.log, e.fx = nil, nil, nil, nil, nil, nil, nil, nil
  e.view = nil
end

-- The key is about to be written as this kind. Returns true if its fields must be set up.
local function begin(e, kind)
  local fresh = e.kind ~= kind
  if fresh and e.ty == 'none' then e.base = false end
  if fresh then e.kind = kind end
  if e.ty == 'none' then e.exp = e.exp or false end
  expiry(e)
  e.ty, e.w = kind, true
  return fresh
end

-- The last member of a collection was removed: Redis deletes the key.
local function emptied(e)
  expiry(e)
  e.ty, e.exp = 'none', false
end

-- Collections of members with a value: hashes, sets, sorted sets.
local HAS = {hash = 'HEXISTS', set = 'SISMEMBER', zset = 'ZSCORE'}
-- What counts the elements of a collection of any type.
local COUNT = {hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', stream = 'XLEN'}

-- Whether there is such a member. It is for a key that exists as `kind`, like the two below.
local function has(e, kind, name)
  local known = e.m and e.m[name]
  if known ~= nil then return known and true end
  if not e.base then return false end
  spend(CALL_STEPS)
  local found = call(HAS[kind], e.k, name)
  return found and found ~= 0
end

-- The value of a member, false if there is none.
local function member(e, kind, name)
  local known = e.m and e.m[name]
  if known ~= nil then return known end
  if not e.base then return false end
  spend(CALL_STEPS)
  local value
  if kind == 'hash' then
    reading(call('HSTRLEN', e.k, name))
    value = call('HGET', e.k, name)
  elseif kind == 'zset' then
    value = call('ZSCORE', e.k, name)
  else
    value = call('SISMEMBER', e.k, name) == 1
  end
  e.m = e.m or {}
  e.m[name] = value
  return value
end

-- When a field that exists in the keyspace expires: ms, false for never.
local function field_expires_at(k, name)
  if not FIELDS_EXPIRE then return false end
  local at_ms = call('HPEXPIRETIME', k, 'FIELDS', 1, name)
  at_ms = at_ms and at_ms[1] or -1
  return at_ms >= 0 and at_ms
end

local function touch(e, name, value)
  e.m[name] = value
  e.view = nil
  if not e.t[name] then
    e.t[name] = true
    e.tl[#e.tl + 1] = name
  end
end

local function begin_members(e, kind)
  if begin(e, kind) then
    if not e.base then e.m = nil end
    e.m, e.t, e.tl, e.d = e.m or {}, {}, {}, 0
  end
end

local function put(e, kind, name, value)
  local added = not has(e, kind, name)
  if added then e.d = e.d + 1 end
  touch(e, name, value)
  return added
end

-- How many elements the key has in the keyspace.
local function base_count(e, command)
  if not e.bn then e.bn = call(command, e.k) end
  return e.bn
end

local function count(e, kind)
  return (e.d or 0) + (e.base and base_count(e, COUNT[kind]) or 0)
end

local function remove(e, kind, name)
  if not has(e, kind, name) then return false end
  begin_members(e, kind)
  touch(e, name, false)
  e.d = e.d - 1
  if count(e, kind) == 0 then emptied(e) end
  return true
end

local function bounded(n)
  if n > MATERIALISED_MAX then
    refuse('too_large', 'more than ' .. MATERIALISED_MAX .. ' elements')
  end
  return n
end

-- So many elements of a key, of `n` in the keyspace, are about to be read: no more than bounds allow, by their count, and
-- by their bytes as far as those can be told.
local function reading_elements(e, wanted, n)
  spend(CALL_STEPS + bounded(wanted))
  if wanted == 0 then return end
  if not e.usage then
    local samples = n <= MATERIALISED_MAX and 0 or 5
    spend(math.min(n, MATERIALISED_MAX) / 16)
    local usage = try('MEMORY', 'USAGE', e.k, 'SAMPLES', samples)
    -- A user who may not ask has no such bound; the replies are counted all the same.
    e.usage = type(usage) == 'number' and usage or 0
  end
  local bytes = e.usage * wanted / n - ELEMENT_OVERHEAD * wanted
  if bytes > 0 then
    bytes_read = bytes_read + bytes
    bound_bytes()
    spend(bytes / STEP_BYTES)
  end
end

-- All members of a hash or set in the keyspace, as the command replies them.
local function all_members(e, command, n)
  if not e.all then
    reading_elements(e, n, n)
    e.all = call(command, e.k)
    spend(#e.all - n)
  end
  return e.all
end

-- Reads up to `limit` elements (all, if it is negative) in pages, each twice as long as the one before, so that too many
-- bytes are noticed before all are read. An element takes `width` places.
local function in_pages(limit, width, steps_each, read)
  if limit < 0 or limit > MATERIALISED_MAX then limit = MATERIALISED_MAX + 1 end
  local result, page = {}, 32
  while limit > 0 do
    local wanted = math.min(page, limit)
    local items = read(#result / width, wanted, result[#result])
    spend(CALL_STEPS + 2 * steps_each * #items)
    bytes_read = bytes_read + size_of(items)
    bound_bytes()
    for _, item in ipairs(items) do result[#result + 1] = item end
    if #items < wanted * width then break end
    limit, page = limit - wanted, 2 * page
  end
  bounded(#result / width)
  return result
end

-- Integers of 64 bits as decimal strings.

local function magnitude_fits(s, max)
  return #s < #max or (#s == #max and s <= max)
end

local function is_int64(s)
  if s == '0' then return true end
  -- The longest one; a pattern would look through all of a longer text.
  if #s > 20 then return false end
  local sign, digits = match(s, '^(%-?)([1-9]%d*)$')
  if not digits then return false end
  return magnitude_fits(digits, sign == '' and '9223372036854775807' or '9223372036854775808')
end

local function limbs(s)
  local sign, digits = match(s, '^(%-?)(%d+)$')
  local cut = #digits - 10
  local high = cut > 0 and tonumber(sub(digits, 1, cut)) or 0
  local low = tonumber(cut > 0 and sub(digits, cut + 1) or digits)
  if sign == '-' then return -high, -low end
  return high, low
end

-- The sum of two integers of up to 24 digits: of 64 bits, or of bounds and sums of such.
local function sum_of(a, b)
  if #a < 16 and #b < 16 then return format('%.0f', tonumber(a) + tonumber(b)) end
  local ah, al = limbs(a)
  local bh, bl = limbs(b)
  local high, low = ah + bh, al + bl
  local base = 10000000000
  if low >= base then high, low = high + 1, low - base end
  if low <= -base then high, low = high - 1, low + base end
  if high > 0 and low < 0 then high, low = high - 1, low + base end
  if high < 0 and low > 0 then high, low = high + 1, low - base end
  local negative = high < 0 or low < 0
  high, low = math.abs(high), math.abs(low)
  local digits = high > 0 and format('%.0f%010.0f', high, low) or format('%.0f', low)
  return negative and '-' .. digits or digits
end

-- The sum of two integers of 64 bits; nil if it is none.
local function add64(a, b)
  local sum = sum_of(a, b)
  return is_int64(sum) and sum or nil
end

-- Whether one integer is less than another, of any length.
local function int_less(a, b)
  local negative_a, negative_b = sub(a, 1, 1) == '-', sub(b, 1, 1) == '-'
  if negative_a ~= negative_b then return negative_a end
  if negative_a then return less(sub(b, 2), sub(a, 2)) end
  return less(a, b)
end

local function add_integer(old, increment)
  if not is_int64(old) then refuse('not_an_integer', 'the value is not an integer of 64 bits') end
  return add64(old, increment) or refuse('overflow', 'the result would leave the range of 64 bits')
end

-- The sum of two long doubles, as only Redis itself computes and prints it. The scratch field never leaves this script
-- and is kept from the AOF and from replicas.
local function add_float(old, increment)
  redis.set_repl(redis.REPL_NONE)
  local sum = try('HSET', ctl, 'x:float', old)
  if type(sum) ~= 'table' then
    sum = try('HINCRBYFLOAT', ctl, 'x:float', increment)
    try('HDEL', ctl, 'x:float')
  end
  redis.set_repl(redis.REPL_ALL)
  if type(sum) ~= 'table' then return sum end
  if match(sum.err, 'float') then
    refuse('not_a_float', 'the value or the increment is not a float')
  end
  if match(sum.err, 'NaN') then
    refuse('not_a_float', 'increment would produce NaN or Infinity')
  end
  error(sum)
end

-- The order of sorted sets: bytes as numbers, whatever the locale, in which Lua compares strings. A long common beginning
-- is skipped by halves.
local function bytes_less(a, b)
  local from, to = 1, math.min(#a, #b)
  spend(to / STEP_BYTES)
  while to - from >= 32 do
    local middle = math.floor((from + to) / 2)
    if sub(a, from, middle) == sub(b, from, middle) then from = middle + 1 else to = middle end
  end
  for i = from, to do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Emits the writes of one collection in chunks that unpack() takes.
local function emit(out, name, k, items)
  local chunk = 1000
  for from = 1, #items, chunk do
    local write = {name, k}
    for i = from, math.min(from + chunk - 1, #items) do write[#write + 1] = items[i] end
    out[#out + 1] = write
  end
end

-- The writes of a hash, set or sorted set: what each touched member is in the end.
local function flush_members(e, out, deletions, add, del, pair)
  local present, absent = {}, {}
  for _, name in ipairs(e.tl) do
    local value = e.m[name]
    if value then
      pair(present, name, value)
    elseif e.base then
      absent[#absent + 1] = name
    end
  end
  emit(out, add, e.k, present)
  emit(deletions, del, e.k, absent)
end

-- The writes of one key, in `out` and, where they may delete it, in `deletions`.
local function flush(e, out, deletions)
  if not e.w then return end
  if e.tl then spend(#e.tl) end
  local ty = e.ty
  if ty == 'string' and e.vd then
    if e.exp then
      out[#out + 1] = {'SET', e.k, e.v, 'PXAT', ms_text(e.exp)}
    else
      out[#out + 1] = {'SET', e.k, e.v}
    end
    return
  end
  if not e.base and e.bty ~= 'none' then
    if ty == 'none' then
      deletions[#deletions + 1] = {'UNLINK', e.k}
      return
    end
    out[#out + 1] = {'UNLINK', e.k}
  end
  if e.kind and (ty ~= 'none' or e.base) then flushers[e.kind](e, out, deletions) end
  if ty == 'none' then return end
  if e.exp then
    -- Said again even if it did not change: a key that expires before the commit must not come back without it.
    out[#out + 1] = {'PEXPIREAT', e.k, ms_text(e.exp)}
  elseif e.exp == false and e.base and e.bexp then
    out[#out + 1] = {'PERSIST', e.k}
  end
end
