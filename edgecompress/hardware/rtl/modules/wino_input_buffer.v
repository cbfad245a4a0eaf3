// Input codes of one image. Pixel (row, column) is in bank (row mod 2^DOWN_LOG, column mod
// 2^ACROSS_LOG), so that the windows of all columns are read in a clock, wherever they begin.
// Addresses have 16 bits, whatever the depth.
/* verilator lint_off UNUSED */
module wino_input_buffer #(
    parameter OMEGA = 4,
    parameter COLUMNS = 2,
    parameter INPUT_BITS = 8,
    parameter WORDS = 1024,
    parameter DOWN_LOG = 2,
    parameter ACROSS_LOG = 3
) (
    input  wire                                      clock,
    input  wire                                      bypass,
    input  wire                                      load,
    input  wire [DOWN_LOG+ACROSS_LOG-1:0]            load_bank,
    input  wire [15:0]                               load_address,
    input  wire [INPUT_BITS-1:0]                     load_value,
    input  wire [15:0]                               set_words,
    input  wire [15:0]                               address,  // of the channel
    input  wire [15:0]                               row,      // of the first window
    input  wire [15:0]                               column,
    output reg  [COLUMNS*OMEGA*OMEGA*INPUT_BITS-1:0] windows   // a clock later
);
    localparam DOWN = 1 << DOWN_LOG;
    localparam ACROSS = 1 << ACROSS_LOG;
    localparam LINE = ACROSS*INPUT_BITS;
    localparam ADDRESS_BITS = $clog2(WORDS);

    reg  [DOWN*LINE-1:0]  words;
    reg  [DOWN_LOG-1:0]   row_offset;
    reg  [ACROSS_LOG-1:0] column_offset;
    wire [15:0] base = address + (row >> DOWN_LOG)*set_words + (column >> ACROSS_LOG);

    always @(posedge clock) begin
        row_offset    <= row[DOWN_LOG-1:0];
        column_offset <= column[ACROSS_LOG-1:0];
    end

    // Places are compared and added in 32 bits.
    /* verilator lint_off WIDTH */
    genvar i, j;
    generate
        for (i = 0; i < DOWN; i = i + 1) begin : bank_row
            for (j = 0; j < ACROSS; j = j + 1) begin : bank
                localparam BANK = i*ACROSS + j;
                reg [INPUT_BITS-1:0] memory [0:WORDS-1];
                // Banks before the first pixel of the window hold the next set of rows or columns.
                wire [15:0] down   = row[DOWN_LOG-1:0] > i ? set_words : 16'd0;
                wire [15:0] across = column[ACROSS_LOG-1:0] > j ? 16'd1 : 16'd0;
                wire [15:0] at     = base + down + across;
                always @(posedge clock) begin
                    if (load && load_bank == BANK)
                        memory[load_address[ADDRESS_BITS-1:0]] <= load_value;
                    words[BANK*INPUT_BITS +: INPUT_BITS] <= memory[at[ADDRESS_BITS-1:0]];
                end
            end
        end
    endgenerate

    // Lines and columns of banks in the order of the image.
    reg [DOWN_LOG-1:0] from;
    reg [2*LINE-1:0]   twice;
    always @(*) begin : turn
        integer y, place;
        for (y = 0; y < OMEGA; y = y + 1) begin
            from = row_offset + y;
            twice = {2{words[from*LINE +: LINE]}} >> (column_offset*INPUT_BITS);
            for (place = 0; place < COLUMNS; place = place + 1)
                windows[(place*OMEGA + y)*OMEGA*INPUT_BITS +: OMEGA*INPUT_BITS] =
                    bypass ? twice[place*OMEGA*INPUT_BITS +: OMEGA*INPUT_BITS]
                           : twice[place*(OMEGA-2)*INPUT_BITS +: OMEGA*INPUT_BITS];
        end
    end
    /* verilator lint_on WIDTH */
endmodule
/* verilator lint_on UNUSED */
