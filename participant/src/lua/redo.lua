-- Applies committed branches whose votes this data lost, from the writes that the log kept. Runs on fenced data only: the
-- head's incarnation is 0. Like a commit it is never refused for memory, and done again it does nothing.
--
-- ARGV     the head (control.lua), then for each branch its txid, '1' if the data's own count says
--          that it had its writes already (then they fill a hole there), its writes, packed, and
--          its done-marker: empty, but for one phase that its log has not heard of. The last two in
--          pieces, how many and then each: no word may be larger than what the server takes at once
-- Returns  an array with one of these for each branch: {'a', dirty, first error} or {'n', code, -1, detail}, as commit.lua
--          says. A field p:<txid> keeps how many writes were applied before Redis refused one.
call('HDEL', ctl, '-')

local function pieces()
  local first, count = at + 1, tonumber(ARGV[at])
  at = first + count
  return table.concat(ARGV, '', first, at - 1)
end

local answers = {}
while at <= #ARGV do
  local txid, fills = ARGV[at], ARGV[at + 1] == '1'
  at = at + 2
  local packed, marker = pieces(), pieces()
  if fills then must_count() end
  local found = call('HMGET', ctl, 'd:' .. txid, 'p:' .. txid)
  if found[1] then
    answers[#answers + 1] = {'a', 0}
  else
    call('HSET', ctl, 'd:' .. txid, marker)
    local answer = {'a', apply_writes(packed, tonumber(found[2] or '0'))}
    local at_write = answer[4]
    if at_write then
      call('HDEL', ctl, 'd:' .. txid)
      call('HSET', ctl, 'p:' .. txid, at_write - 1)
      answer = refused(at_write, answer[5], answer[6])
    else
      if found[2] then call('HDEL', ctl, 'p:' .. txid) end
      if fills then call('HINCRBY', ctl, 'm:ended', 1) end
    end
    answers[#answers + 1] = answer
  end
end
return answers
