import { main } from '../src/daemon/main.js'

void main(process.argv.slice(2))
