// What the client programs share: where the packages are, and how they talk with the test that started them.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// The packages are installed in the working directory, not in the directory of this file.
export const load = createRequire(process.cwd() + '/')

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** Asks the test to do something, and returns when it has: with what it says, such as another address. */
export async function ask(what) {
  console.log(what)
  const { value } = await lines.next()
  if (!/^done\b/.test(value)) throw new Error(`${what}: ${value}`)
  return value.slice('done '.length)
}

/** Waits until `isSo` returns true. */
export async function within(seconds, what, isSo) {
  const end = Date.now() + seconds * 1_000
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
