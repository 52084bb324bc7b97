-- Keys of any type.

ops.DEL = function(i, n)
  local gone = 0
  for j = i, i + n - 1 do
    local e = entry(ARGV[j])
    if typ(e) ~= 'none' then
      clear(e)
      gone = gone + 1
    end
  end
  return gone
end

ops.EXISTS = function(i, n)
  local there = 0
  for j = i, i + n - 1 do
    if typ(entry(ARGV[j])) ~= 'none' then there = there + 1 end
  end
  return there
end

ops.TYPE = function(i) return typ(entry(ARGV[i])) end

-- ARGV: key, R (relative) or A (absolute), ms, flags of N X G L
ops.EXPIRE = function(i)
  local e = entry(ARGV[i])
  if typ(e) == 'none' then return 0 end
  local when = tonumber(ARGV[i + 2])
  if ARGV[i + 1] == 'R' then when = when + now() end
  local flags = ARGV[i + 3]
  local current = expiry(e)
  if flags ~= '' then
    if match(flags, 'N') and current then return 0 end
    if match(flags, 'X') and not current then return 0 end
    if match(flags, 'G') and (not current or when <= current) then return 0 end
    if match(flags, 'L') and current and when >= current then return 0 end
  end
  if when <= now() then
    clear(e)
  else
    e.exp, e.w = when, true
  end
  return 1
end

-- Bytes of memory that a key takes, about; and its elements. A user who may not ask has the bound
-- of elements alone.
local function weigh(e)
  local ty, count = typ(e), 0
  if ty == 'string' then return call('STRLEN', e.k), 1 end
  if COUNT[ty] then count = call(COUNT[ty], e.k) end
  local samples = count <= MATERIALISED_MAX and 0 or 5
  spend(math.min(count, MATERIALISED_MAX) / 16)
  local usage = try('MEMORY', 'USAGE', e.k, 'SAMPLES', samples)
  if type(usage) == 'number' then return usage, count end
  return 0, bounded(count)
end

-- A digest of what a key is: type, value and expiry; nil if it is not there. A dump holds the
-- fields of a hash that have expired and are not removed yet, so that the others are counted.
ops.DIGEST = function(i)
  local e = entry(ARGV[i])
  if typ(e) == 'none' then return false end
  spend(4 * CALL_STEPS)
  local bytes, count = weigh(e)
  if bytes > DIGEST_BYTES_MAX then
    refuse('too_large', 'a digest is of keys of up to ' .. DIGEST_BYTES_MAX .. ' bytes; this one'
      .. ' takes ' .. bytes)
  end
  bytes_read = bytes_read + bytes
  bound_bytes()
  spend(bytes * DIGEST_STEPS / STEP_BYTES)
  local dump, live = call('DUMP', e.k), 0
  if FIELDS_EXPIRE and typ(e) == 'hash' then
    spend(count)
    live = #call('HKEYS', e.k)
  end
  local exp = expiry(e)
  return redis.sha1hex(dump .. live .. ':' .. (exp and ms_text(exp) or ''))
end

ops.PERSIST = function(i)
  local e = entry(ARGV[i])
  if typ(e) == 'none' or not expiry(e) then return 0 end
  e.exp, e.w = false, true
  return 1
end

local function ttl(e)
  if typ(e) == 'none' then return -2 end
  local exp = expiry(e)
  if not exp then return -1 end
  return math.max(exp - now(), 0)
end

ops.PTTL = function(i) return ms_text(ttl(entry(ARGV[i]))) end

ops.TTL = function(i)
  local left = ttl(entry(ARGV[i]))
  if left < 0 then return left end
  return ms_text(math.floor((left + 500) / 1000))
end
