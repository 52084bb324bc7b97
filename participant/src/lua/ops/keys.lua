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
