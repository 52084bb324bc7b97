-- Applies committed branches whose votes this data lost, from the writes that the log kept. Runs on fenced data only: the
-- head's incarnation is 0. Like a commit it is never refused for memory, and done again it does nothing.
--
-- ARGV     the head (control.lua), then for each branch its txid, its writes, packed, and '1' if the data's own count says
--          that it had them already: then they fill a hole there
-- Returns  an array with one of these for each branch: {'a', dirty, first error}, as commit.lua says
call('HDEL', ctl, '-')

local answers = {}
for i = at, #ARGV, 3 do
  local txid = ARGV[i]
  if call('HEXISTS', ctl, 'd:' .. txid) == 1 then
    answers[#answers + 1] = {'a', 0}
  else
    call('HSET', ctl, 'd:' .. txid, '')
    if ARGV[i + 2] == '1' then call('HINCRBY', ctl, 'm:applied', 1) end
    answers[#answers + 1] = {'a', apply_writes(ARGV[i + 1])}
  end
end
return answers
