// What a restore does, with all the code for it: loaded with the first one.
export {putInPlace, tidyUp} from './restore-commit.js'
export {planRestore} from './restore-plan.js'
export {toRestoreWish} from './restore-wish.js'
