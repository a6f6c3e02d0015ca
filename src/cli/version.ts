/** That of package.json; a test compares them. A constant keeps the bundle free of the file. */
export const VERSION = '0.1.0'
