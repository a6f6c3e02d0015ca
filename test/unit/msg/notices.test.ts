import t from 'tap'
import { notice, NOTICES } from '../../../src/msg/notices.js'

t.test('the sentences of md(7D)', async (t) => {
  t.same(notice('needsMaintenance', 'd10', 'c0t0d0s0'), {
    level: 'warning',
    text: 'md: d10: c0t0d0s0 needs maintenance',
  })
  t.same(notice('lastErred', 'd10', 'c0t0d0s0').text, 'md: d10: c0t0d0s0 last erred')
  t.same(notice('hotSpared', 'd10', 'c0t0d0s0', 'c1t0d0s0'), {
    level: 'notice',
    text: 'md: d10: hotspared device c0t0d0s0 with c1t0d0s0',
  })
  t.equal(notice('resyncCancelled', 'd0').text, 'md: d0: Resync cancelled')
  t.equal(notice('openError', 'd0', '$&').text, 'md d0: open error on $&')
  for (const [, text] of Object.values(NOTICES)) t.match(text, /^md[: ]/)
})
