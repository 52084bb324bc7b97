-- Sets.

flushers.set = function(e, out, deletions)
  flush_members(e, out, deletions, 'SADD', 'SREM', function(list, name) list[#list + 1] = name end)
end

ops.SISMEMBER = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'set') and member(e, 'set', ARGV[i + 1]) and 1 or 0
end

ops.SCARD = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'set') and count(e, 'set') or 0
end

ops.SMEMBERS = function(i)
  local e, reply = entry(ARGV[i]), {}
  if not is_kind(e, 'set') then return reply end
  bounded(count(e, 'set'))
  local seen = {}
  if e.base then
    local base = all_members(e, 'SMEMBERS', base_count(e, 'SCARD'))
    if not e.t then return base end
    spend(#base)
    for _, name in ipairs(base) do
      seen[name] = true
      if e.m[name] ~= false then reply[#reply + 1] = name end
    end
  end
  spend(#e.tl)
  for _, name in ipairs(e.tl) do
    if e.m[name] and not seen[name] then reply[#reply + 1] = name end
  end
  return reply
end

ops.SADD = function(i, n)
  local e, added = entry(ARGV[i]), 0
  is_kind(e, 'set')
  begin_members(e, 'set')
  for j = i + 1, i + n - 1 do
    if put(e, 'set', ARGV[j], true) then added = added + 1 end
  end
  return added
end

ops.SREM = function(i, n)
  local e, gone = entry(ARGV[i]), 0
  for j = i + 1, i + n - 1 do
    if is_kind(e, 'set') and remove(e, 'set', ARGV[j]) then gone = gone + 1 end
  end
  return gone
end
